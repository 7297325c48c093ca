"""The bottleneck of a GPU run, and how much of the trace the GPU worked."""

import pytest

from glassworld.trace import analyze
from glassworld.trace.analyzers.bottleneck import (
    LEAST_OPERATIONS,
    Bottleneck,
    GpuUse,
    find_bottleneck,
    gpu_use,
)
from glassworld.trace.analyzers.caveats import find_caveats
from glassworld.trace.rules.rule import advise
from glassworld.trace.timeline.analysis import Analysis
from glassworld.trace.timeline.idle import MOST_GAPS
from glassworld.trace.timeline.rows import WHOLE_RUN
from tests.support.traces import GpuTrace, analysis_json, write


def analysis_of(tmp_path, gpu):
    return analyze(write(tmp_path / "gpu.json", gpu.events, config=None))


def verdict_of(analysis: Analysis) -> Bottleneck:
    verdict = find_bottleneck(analysis)
    assert verdict is not None
    return verdict


def use_of(analysis: Analysis) -> GpuUse:
    use = gpu_use(analysis)
    assert use is not None
    return use


@pytest.mark.parametrize(
    ("dur", "pause", "sync", "kind"),
    [(300, 10, 0, "gpu"), (5, 40, 0, "launch"), (100, 60, 105, "sync"), (100, 2000, 0, "host")],
)
def test_find_bottleneck_names_the_kind(tmp_path, dur, pause, sync, kind):
    gpu = GpuTrace()
    with gpu.tag("step"):
        for _ in range(60):
            gpu.launch("gemm", dur)
            if sync:
                gpu.call("cudaStreamSynchronize", sync)
            gpu.op("aten::add", pause)
        gpu.wait(17_000 if kind == "gpu" else 0)
    verdict = verdict_of(analysis_of(tmp_path, gpu))
    assert verdict.kind == kind
    busy = 60 * dur / 1000
    assert verdict.idle_ms == pytest.approx(verdict.idle_share * (busy + verdict.idle_ms), rel=0.05)


def test_long_launch_call_is_idle_time_and_its_culprit(tmp_path):
    gpu = GpuTrace()
    with gpu.tag("step"):
        for call in range(20):
            if call == 10:
                start = gpu.now
                gpu.event("cuda_runtime", "cudaLaunchKernel", start, 200_000, correlation=99)
                args = {"correlation": 99, "stream": 7, "device": 0}
                gpu.event("kernel", "new", start + 200_010, 40, pid=0, tid=7, **args)
                gpu.now = start + 200_000
                gpu.free = start + 200_050
            gpu.launch("gemm", 40)
            gpu.wait(60)
    analysis = analysis_of(tmp_path, gpu)
    verdict = verdict_of(analysis)
    assert verdict.kind == "host"
    assert verdict.idle_share > 0.99
    assert "cudaLaunchKernel" in verdict.sentence
    assert analysis.gaps[0].culprit == "cudaLaunchKernel"
    assert not analysis.gaps[0].queued
    assert analysis.idle.queued_ms == 0
    [finding] = advise(analysis)
    assert finding.rule == "slow-first-launch"
    assert "cudaLaunchKernel" in finding.what
    assert "warm up" in finding.change


def test_find_bottleneck_counts_waits_of_several_threads_at_once_only_once(tmp_path, small_chunks):
    gpu = GpuTrace()
    for _ in range(40):
        for thread in (2, 3, 4):
            gpu.event("cuda_runtime", "cudaEventSynchronize", gpu.now, 80, tid=thread)
        gpu.launch("gemm", 600)
        gpu.wait(998)
    path = write(tmp_path / "gpu.json", gpu.events, config=None)
    whole = analyze(path)
    with small_chunks(rows=50, kept=100):
        chunked = analyze(path)
    for analysis in (whole, chunked):
        verdict = verdict_of(analysis)
        assert verdict.sync_ms == pytest.approx(40 * 0.08)
        assert verdict.kind == "launch"


def test_find_bottleneck_counts_the_host_work_of_all_long_gaps(tmp_path, small_chunks):
    gpu = GpuTrace()
    for _ in range(600):
        with gpu.tag("step"):
            gpu.op("next_batch", 1500)
            gpu.launch("gemm", 1500)
            gpu.call("cudaStreamSynchronize", 1505)
    path = write(tmp_path / "gpu.json", gpu.events, config=None)
    whole = analyze(path)
    with small_chunks(rows=500, kept=1000):
        chunked = analyze(path)
    for analysis in (whole, chunked):
        work = analysis.idle.host["next_batch"]
        assert (work.gaps, work.tag) == (600, "step")
        assert work.ms == pytest.approx(600 * 1.507, rel=0.001)
        assert verdict_of(analysis).kind == "host"
        assert len(analysis.gaps) == MOST_GAPS
    assert chunked.gaps == whole.gaps
    assert {finding.tag for finding in advise(whole)} == {"next_batch"}


def test_gpu_use_counts_the_time_before_the_first_operation(tmp_path):
    gpu = GpuTrace()
    with gpu.tag("read_files"):
        gpu.wait(900_000)
    with gpu.tag("step"):
        for _ in range(10):
            gpu.launch("gemm", 100)
            gpu.wait(98)
    analysis = analysis_of(tmp_path, gpu)
    use = use_of(analysis)
    assert use.first_op_ms == pytest.approx(900.005)
    assert use.busy_ms == pytest.approx(1.0)
    assert use.busy_ms + use.idle_ms == pytest.approx(use.window_ms)
    assert verdict_of(analysis).kind == "host"
    assert any("first GPU operation" in n and "read_files" in n for n in find_caveats(analysis))
    assert analysis_json(analysis)["gpu"]["busy_share"] == pytest.approx(use.busy_share)


def test_few_operations_give_no_verdict(tmp_path):
    gpu = GpuTrace()
    with gpu.tag("step"):
        for _ in range(LEAST_OPERATIONS - 1):
            gpu.launch("gemm", 40)
        gpu.wait(100_000)
    analysis = analysis_of(tmp_path, gpu)
    assert find_bottleneck(analysis) is None
    assert any("too few" in note for note in find_caveats(analysis))
    document = analysis_json(analysis)
    assert document["bound"] is None
    assert document["gpu"]["busy_share"] < 0.01


def test_operations_without_launches_have_no_launch_delay(tmp_path):
    gpu = GpuTrace()
    with gpu.tag("step"):
        for _ in range(20):
            gpu.launch("gemm", 40)
            gpu.wait(500)
    gpu.events = [event for event in gpu.events if event["cat"] != "cuda_runtime"]
    verdict = verdict_of(analysis_of(tmp_path, gpu))
    assert verdict.kind == "mixed"
    assert verdict.delay_ms is None


def test_launch_bound_names_no_tag_that_idles_little(tmp_path):
    gpu = GpuTrace()
    for _ in range(5):
        with gpu.tag("small"):
            gpu.launch("add", 5)
            gpu.wait(20)
            gpu.launch("add", 5)
        for _ in range(20):
            gpu.launch("mul", 5)
            gpu.wait(40)
    analysis = analysis_of(tmp_path, gpu)
    [finding] = [finding for finding in advise(analysis) if finding.rule == "launch-bound"]
    assert finding.tag == WHOLE_RUN
    assert finding.gain_ms <= use_of(analysis).idle_ms
    assert "start 3 µs after their launch" in verdict_of(analysis).sentence  # 5 less the call's 2
