"""Memory by tag."""

import pytest

from glassworld.trace import analyze
from glassworld.trace.reading import columns
from tests.support.traces import CpuTrace, GpuTrace, write


def test_tag_memory_does_not_depend_on_slices(tmp_path, monkeypatch):
    clock, held_now = CpuTrace(), 0

    def allocate(size):
        nonlocal held_now
        held_now += size
        args = {"Total Allocated": held_now, "Bytes": size, "Device Type": 0, "Device Id": -1}
        clock.events.append(
            {"ph": "i", "cat": "cpu_instant_event", "name": "[memory]", "pid": 1, "tid": 1}
            | {"ts": round(clock.base + clock.now, 3), "s": "t", "args": args}
        )
        clock.wait(1)

    mib = 2**20
    with clock.tag("outer"):
        clock.wait(1)
        allocate(5 * mib)
        for _ in range(3):
            with clock.tag("inner"):
                clock.wait(1)
                allocate(7 * mib)
                allocate(-6 * mib)
    path = write(tmp_path / "memory.json", clock.events)
    for rows in (1 << 18, 2):
        monkeypatch.setattr(columns, "SLICE_ROWS", rows)
        found = {row.tag: row for row in analyze(path).memory}
        assert found["inner"].peak_mib == found["outer"].peak_mib == 5 + 2 + 7
        assert found["inner"].kept_mib == 1
        assert found["outer"].kept_mib == 8


def test_memory_of_a_run_without_tags_is_of_the_whole_and_of_outermost_operators(tmp_path):
    gpu = GpuTrace()
    for i in range(3):
        with gpu.op_range("aten::linear"):
            gpu.wait(5)
            with gpu.op_range("aten::mm"):
                gpu.memory((10 + i) << 20, 0)
                gpu.wait(5)
        gpu.wait(10)
    gpu.memory(1 << 20, 0)
    rows = {row.tag: row for row in analyze(write(tmp_path / "t.json", gpu.events)).memory}
    assert set(rows) == {"(the whole run)", "aten::linear"}
    assert rows["(the whole run)"].peak_mib == rows["aten::linear"].peak_mib == 12
    assert rows["aten::linear"].kept_mib == pytest.approx(2 / 3)
