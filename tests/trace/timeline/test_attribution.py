"""GPU operations find their tags, and busy time counts nothing twice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glassworld.trace import analyze
from glassworld.trace.analyzers.caveats import find_caveats
from tests.support.traces import JSON_VALUES, CpuTrace, GpuTrace, analysis_json, write


@pytest.mark.parametrize("place", ["correlation", "stream", "device", "bytes"])
@pytest.mark.parametrize("value", JSON_VALUES, ids=repr)
def test_attribute_ops_with_odd_arguments_are_counted(tmp_path, place, value):
    gpu = GpuTrace()
    with gpu.tag("step"):
        for _ in range(3):
            gpu.launch("gemm", 10)
    gpu.events[-1]["args"][place] = value
    analysis = analyze(write(tmp_path / "odd.json", gpu.events, config=None))
    assert analysis.coverage.gpu_ops == 3
    assert analysis.coverage.launched >= 2
    assert analysis_json(analysis)["tags"][0]["gpu_busy_ms"] >= 0.02


def test_attribute_ops_tags_far_apart_on_many_threads_stay_separate(tmp_path):
    """Nanoseconds since 1970 times the number of threads is more than an integer holds."""
    events = []
    for tid in range(40):
        for base in (1.0, 1_764_000_000_000_000.0):
            at = {"ph": "X", "pid": 1, "tid": f"thread {tid}", "ts": base + tid}
            events.append(at | {"cat": "user_annotation", "name": f"tag {tid}", "dur": 8})
            call = {"correlation": len(events)}
            events.append(at | {"cat": "cuda_runtime", "name": "launch", "dur": 1, "args": call})
            events.append(at | {"cat": "kernel", "name": "k", "dur": 5, "args": call, "pid": 9})
    tags = analyze(write(tmp_path / "far.json", events, config=None)).tags
    assert sorted((tag.instances, tag.gpu_kernels) for tag in tags) == [(2, 2)] * 40


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 200), st.integers(1, 40)), max_size=30))
def test_busy_time_is_the_union_over_streams_and_within_each(tmp_path_factory, ops):
    clock = CpuTrace(base=1000.0)
    with clock.tag("outer"):
        for i, (stream, start, dur) in enumerate(ops):
            clock.event("cuda_runtime", "cudaLaunchKernel", i * 2, 1, correlation=i + 1)
            args = {"correlation": i + 1, "stream": stream}
            clock.event("kernel", "k", 500 + start, dur, pid=0, tid=stream, **args)
        clock.wait(300)
    analysis = analyze(write(tmp_path_factory.mktemp("gpu") / "t.json", clock.events))
    covered = {t for _, start, dur in ops for t in range(start, start + dur)}
    assert analysis.device.busy[0] == 1000 * len(covered)
    assert analysis.ops.exclusive.sum() == 1000 * len(covered)
    [row] = analysis.tags
    assert row.gpu_busy_ms <= row.gpu_span_ms <= analysis.duration_ns / 1e6
    assert analysis.device.kernels[0] == len(ops)


def test_launch_delay_is_the_median_time_queued(tmp_path, small_chunks):
    gpu = GpuTrace()
    for delay in (10, 20, 1000, 3000):
        with gpu.tag("step"):
            gpu.launch("gemm", 5, delay=delay)
            gpu.wait(10_000)
    path = write(tmp_path / "t.json", gpu.events, config=None)
    whole = analyze(path)
    with small_chunks(rows=4, kept=4):
        chunked = analyze(path)
    for analysis in (whole, chunked):
        [row] = analysis.patterns
        assert row.launch_delay_ms == pytest.approx((18 + 998) / 2 / 1e3)


def test_device_time_counts_copies_and_collectives_separately(tmp_path):
    gpu = GpuTrace()
    with gpu.tag("step"):
        gpu.launch("gemm", 300)
        gpu.launch("Memcpy DtoH (Device -> Pinned)", 40, cat="gpu_memcpy")
        gpu.launch("Memset (Device)", 2, cat="gpu_memset")
        gpu.launch("ncclDevKernel_AllReduce_Sum", 50)
        gpu.wait(1000)
    [row] = analyze(write(tmp_path / "gpu.json", gpu.events, config=None)).tags
    assert (row.gpu_kernels, row.gpu_copies, row.gpu_collectives) == (4, 2, 1)
    assert row.gpu_copy_ms == pytest.approx(0.042)
    assert row.gpu_collective_ms == pytest.approx(0.050)
    assert row.gpu_busy_ms == row.gpu_self_ms == pytest.approx(0.392)


def test_span_of_overlapping_instances_is_their_union(tmp_path):
    """The second instance's operation starts before the first one's ends."""
    gpu = GpuTrace()
    for stream in range(2):
        with gpu.tag("step"):
            args = {"correlation": stream + 1}
            gpu.event("cuda_runtime", "cudaLaunchKernel", gpu.now, 2, **args)
            place = {"stream": stream, "device": 0}
            gpu.event("kernel", "k", gpu.now + 5, 1000, pid=0, tid=stream, **args, **place)
            gpu.wait(100)
    analysis = analyze(write(tmp_path / "gpu.json", gpu.events, config=None))
    [row] = analysis.tags
    assert row.gpu_busy_ms == row.gpu_span_ms == pytest.approx(1.1)
    assert row.gpu_sum_ms == pytest.approx(2.0)
    assert row.gpu_idle_ms == 0


def test_stream_that_overlaps_itself_is_noted(tmp_path):
    gpu = GpuTrace()
    with gpu.tag("step"):
        for _ in range(10):
            gpu.free = 0.0
            gpu.launch("gemm", 300)
            gpu.wait(100)
    analysis = analyze(write(tmp_path / "gpu.json", gpu.events, config=None))
    assert analysis.tags[0].gpu_busy_ms < analysis.duration_ns / 1e6
    assert any("overlap" in note for note in find_caveats(analysis))
