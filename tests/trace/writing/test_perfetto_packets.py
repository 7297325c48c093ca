"""Traces written for Perfetto are valid to the library of protocol buffers and read back alike."""

from collections import defaultdict

import pytest

from glassworld.trace import analyze
from glassworld.trace.analyzers.caveats import find_caveats
from glassworld.trace.reading.reader import read_trace
from glassworld.trace.writing.perfetto_packets import write_perfetto
from tests.support.other_formats import RUN, figures
from tests.support.protos import PERFETTO
from tests.support.traces import GpuTrace, engine_run, invoke, write


def overlapping():
    """Return a run in which kernels of one stream overlap, with the allocator's record."""
    gpu = GpuTrace()
    for step in range(3):
        with gpu.tag(f"step_{step}"), gpu.tag("as_long"), gpu.tag("as_long_too"):
            gpu.memory(1 << 20 + step, 0)
            gpu.launch("gemm", 40)
            gpu.free = 0
            gpu.launch("relu", 40)
            gpu.memory(1 << 19, 0)
    return gpu.events


@pytest.mark.parametrize("events", [RUN, engine_run(blocks=2), overlapping()])
def test_write_perfetto_reads_back_to_the_same_figures(tmp_path, events):
    path = write(tmp_path / "run.json", events, config=None)
    write_perfetto(tmp_path / "run.pftrace", read_trace(path))
    again = analyze(tmp_path / "run.pftrace")
    assert again.trace.losses == []
    assert figures(again) == figures(analyze(path))


def test_write_perfetto_keeps_the_streams_of_merged_ranks_apart(tmp_path):
    paths = []
    for rank in range(2):
        gpu = GpuTrace()
        for _ in range(6):
            with gpu.tag("step"):
                gpu.launch("gemm", 100 + 20 * rank)
                gpu.launch("ncclDevKernel_AllReduce", 50)
        paths.append(write(tmp_path / f"rank{rank}.json", gpu.events, config=None))
    invoke("merge", *paths, "-o", tmp_path / "both.json")
    write_perfetto(tmp_path / "both.pftrace", read_trace(tmp_path / "both.json"))
    merged, again = analyze(tmp_path / "both.json"), analyze(tmp_path / "both.pftrace")
    assert merged.gpu is not None
    assert merged.gpu.overlap_ns == 0
    assert figures(again) == figures(merged)
    assert not any("overlap others" in note for note in find_caveats(again))


def test_write_perfetto_slices_of_a_track_never_overlap(tmp_path):
    path = write(tmp_path / "run.json", overlapping(), config=None)
    write_perfetto(tmp_path / "run.pftrace", read_trace(path))
    trace = PERFETTO["Trace"].FromString((tmp_path / "run.pftrace").read_bytes())
    names = {p.track_descriptor.uuid: p.track_descriptor.name for p in trace.packet}
    assert {"Tags, level 0", "GPU 0, stream 7", "GPU 0, stream 7 (2)"} <= set(names.values())
    moments = defaultdict(list)
    for packet in trace.packet:
        if packet.HasField("track_event"):
            event = packet.track_event
            moments[names[event.track_uuid]].append((packet.timestamp, event.type))
    values = [at for at, kind in moments.pop("Allocated bytes, device 0") if kind == 4]
    assert len(values) == 1 + 6  # the first one is the total before
    for track in moments.values():
        assert track == sorted(track, key=lambda moment: moment[0])
        assert [kind for _, kind in track] == [1, 2] * (len(track) // 2)
