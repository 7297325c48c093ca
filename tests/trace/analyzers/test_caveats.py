"""What the notes say of a flight recording, also of a damaged one, and of several devices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from glassworld.trace import analyze
from glassworld.trace.analyzers.caveats import find_caveats
from tests.support.traces import JSON_VALUES, GpuTrace, write

LATE = {"time": "2026-11-29T12:03:07.000+00:00", "block": 28, "frame": 345, "late_ms": 412.0}
BLOCK = {"waited_ms": 12.4, "generated_ms": 1210.0, "encoded_ms": 8.0}
TAG = {"ph": "X", "cat": "user_annotation", "name": "A_Tag", "ts": 1, "dur": 5, "pid": 1, "tid": 1}


def notes(folder: Path, recording: object) -> list[str]:
    """Return the notes about a trace of one tag with this metadata of a flight recording."""
    content = {"glassworld": {"flight_recorder": recording}, "traceEvents": [TAG]}
    path = folder / "trace.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return find_caveats(analyze(path))


def test_flight_recording_names_its_late_frame_and_what_its_block_waited_for(
    tmp_path: Path,
) -> None:
    about, host = notes(tmp_path, {"late_frame": LATE, "late_block": BLOCK})[:2]
    assert about == (
        "frame 345 of block 28 was sent 0.41 s late, at 2026-11-29T12:03:07.000+00:00: the block "
        "waited 12 ms for the device, took 1,210 ms to generate and 8 ms to encode"
    )
    assert "on a GPU, a tag lasts as long as launching its work" in host


def test_flight_recording_without_its_block_names_the_late_frame(tmp_path: Path) -> None:
    about = notes(tmp_path, {"late_frame": LATE, "late_block": None})[0]
    assert about.endswith("late, at 2026-11-29T12:03:07.000+00:00")


@pytest.mark.parametrize("broken", [*JSON_VALUES, 10**400], ids=lambda value: repr(value)[:9])
@pytest.mark.parametrize("key", ["", *LATE, *BLOCK])
def test_damaged_flight_recording_is_read_all_the_same(
    tmp_path: Path, key: str, broken: Any
) -> None:
    recording: object = {"late_frame": LATE | {key: broken}, "late_block": BLOCK | {key: broken}}
    if not key:
        recording = broken
    described = [note for note in notes(tmp_path, recording) if "flight recording" in note]
    assert len(described) == (bool(key) or isinstance(broken, dict))


def test_several_devices_are_named_with_their_shares(tmp_path: Path, small_chunks: Any) -> None:
    gpu = GpuTrace()
    for i in range(40):
        device = int(i % 4 == 0)
        args = {"correlation": i + 1, "stream": 7, "device": device}
        gpu.event("cuda_runtime", "cudaLaunchKernel", 100 * i, 2, correlation=i + 1)
        gpu.event("kernel", "gemm", 100 * i, 100, pid=device, tid=7, **args)
        gpu.event("kernel", "side", 100 * i + 50, 50, pid=device, tid=8, **args | {"stream": 8})
    path = write(tmp_path / "t.json", gpu.events, config=None)
    whole = find_caveats(analyze(path))
    assert any("device 0 works 75%, device 1 works 25% of the trace" in note for note in whole)
    with small_chunks(rows=20, kept=40):
        assert [n for n in find_caveats(analyze(path)) if "several devices" in n] == [
            n for n in whole if "several devices" in n
        ]


def test_one_device_is_not_named(tmp_path: Path) -> None:
    gpu = GpuTrace()
    for _ in range(6):
        gpu.launch("gemm", 100)
    caveats = find_caveats(analyze(write(tmp_path / "t.json", gpu.events, config=None)))
    assert not any("several devices" in note for note in caveats)


def test_operations_that_hold_others_are_a_reason_for_overlap(tmp_path: Path) -> None:
    gpu = GpuTrace()
    where = {"pid": 0, "tid": 7, "stream": 7, "device": 0}
    gpu.event("kernel", "while", 0, 1000, **where)
    for i in range(10):
        gpu.event("kernel", "fusion", 100 * i, 90, **where)
    caveats = find_caveats(analyze(write(tmp_path / "t.json", gpu.events, config=None)))
    assert any("operations that hold others" in note for note in caveats)
