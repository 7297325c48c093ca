"""A trace too large for memory, analyzed in chunks, has the same sums as at once."""

from dataclasses import asdict

import pytest

from glassworld.trace import analyze
from glassworld.trace.analyzers.breakdown import layer_shares
from glassworld.trace.analyzers.caveats import find_caveats
from glassworld.trace.reading import columns
from glassworld.trace.rules.rule import advise
from glassworld.trace.timeline import chunks, merged
from glassworld.trace.timeline.merged import MergedAnalysis
from tests.support.paths import SHARED
from tests.support.traces import CONFIG, GpuTrace, analysis_json, engine_run, near, write

TRACES = SHARED / "traces"


needs_traces = pytest.mark.skipif(not TRACES.is_dir(), reason="shared/traces is not here")


@pytest.fixture
def in_chunks(monkeypatch):
    """Analyze a trace in chunks of about so many rows, sampling so many rows."""

    def run(path, rows, kept=100):
        monkeypatch.setattr(columns, "IN_MEMORY_ROWS", rows // 3)
        monkeypatch.setattr(columns, "SLICE_ROWS", rows // 2)
        monkeypatch.setattr(chunks, "CHUNK_ROWS", rows)
        monkeypatch.setattr(merged, "SAMPLED_ROWS", kept)
        analysis = analyze(path)
        assert isinstance(analysis, MergedAnalysis)
        return analysis

    return run


def gpu_run(steps):
    """Return steps whose kernels outlast their launches, so that chunks cut a queue in two."""
    gpu = GpuTrace()
    with gpu.tag("run"):
        for step in range(steps):
            with gpu.tag(f"step {step}"):
                for _ in range(5):
                    with gpu.tag("forward"), gpu.op_range("aten::mm"):
                        gpu.launch("gemm", 100)
                    gpu.wait(7)
                with gpu.op_range("aten::copy_"):
                    gpu.launch("Memcpy HtoD (Pinned -> Device)", 3, cat="gpu_memcpy")
                gpu.memory((step + 1) << 20, device=0)
                gpu.wait(30)
        gpu.wait(200 * steps)
    return gpu.events


TIMES = [
    *("cpu_ms", "self_cpu_ms", "gpu_busy_ms", "gpu_self_ms", "gpu_sum_ms", "gpu_span_ms"),
    *("gpu_idle_ms", "gpu_copy_ms"),
]


def assert_same_sums(chunked, whole):
    """Check all sums; return both analyses as JSON documents."""
    assert chunked.coverage == whole.coverage
    assert chunked.duration_ns == whole.duration_ns
    assert chunked.tagged_ns == whole.tagged_ns
    for mine, theirs in (
        (chunked.tags, whole.tags),
        (chunked.patterns, whole.patterns),
    ):
        rows = {row.path: asdict(row) for row in mine}
        assert set(rows) == {row.path for row in theirs}
        for row in theirs:
            expected = asdict(row)
            for name in TIMES:
                expected[name] = pytest.approx(expected[name], rel=1e-9, abs=1e-9)
            assert rows[row.path] == expected
    document, expected = analysis_json(chunked), analysis_json(whole)
    operators = {row["name"]: row for row in document["operators"]}
    for row in expected["operators"]:
        assert operators[row["name"]]["calls"] == row["calls"]
        assert operators[row["name"]]["cpu_ms"] == pytest.approx(row["cpu_ms"], abs=1e-5)
    assert document["kernels"] == expected["kernels"]
    peaks = {(row.tag, row.device): row.peak_mib for row in whole.memory}
    assert {(row.tag, row.device): row.peak_mib for row in chunked.memory} == peaks
    return document, expected


@pytest.mark.parametrize("rows", [300, 1000])
def test_analyze_engine_run_in_chunks_has_the_same_sums(tmp_path, small_pieces, in_chunks, rows):
    path = write(tmp_path / "run.json", engine_run(blocks=12))
    whole = analyze(path)
    chunked = in_chunks(path, rows)
    document, expected = assert_same_sums(chunked, whole)
    assert len(chunked.tree) + chunked.dropped_instances == len(whole.tree)
    assert document["expected"] == expected["expected"]


@pytest.mark.parametrize("rows", [200, 900])
def test_analyze_gpu_run_in_chunks_finds_every_launch(tmp_path, small_pieces, in_chunks, rows):
    path = write(tmp_path / "gpu.json", gpu_run(60), config=None)
    whole = analyze(path)
    chunked = in_chunks(path, rows)
    assert_same_sums(chunked, whole)
    assert chunked.coverage.attributed == chunked.coverage.gpu_ops == 60 * 6
    assert chunked.gpu is not None
    assert whole.gpu is not None
    assert chunked.gpu.busy_ns == whole.gpu.busy_ns
    assert chunked.idle.queued_ms == pytest.approx(whole.idle.queued_ms)
    assert [gap.ms for gap in chunked.gaps] == [gap.ms for gap in whole.gaps]
    assert chunked.longest_ops == whole.longest_ops


def test_analyze_in_chunks_samples_unusual_instances(tmp_path, small_pieces, in_chunks):
    def slow(block, layer, **_):
        return 300_000.0 if (block, layer) == (29, -1) else 0.0

    path = write(tmp_path / "run.json", engine_run(blocks=40, slow=slow))
    whole = analyze(path)
    chunked = in_chunks(path, 6000, kept=1500)
    document, _ = assert_same_sums(chunked, whole)
    assert 0 < len(chunked.tree) <= 1500
    assert len(chunked.tree) + chunked.dropped_instances >= len(whole.tree)
    assert any("sums are of all" in caveat for caveat in find_caveats(chunked))
    stalls = [finding for finding in advise(chunked) if finding.rule == "stall"]
    assert [finding.tag for finding in stalls] == ["2.3_Block_29"]
    assert len(document["instances_detail"]) == len(chunked.tree)
    assert document["blocks"][0]["block"] == 0


@needs_traces
@pytest.mark.parametrize("name", ["b200-vllm-eager", "h100-owlv2"])
def test_analyze_real_trace_in_chunks_has_the_same_sums(in_chunks, name):
    path = TRACES / f"{name}.json.gz"
    whole = analyze(path)
    chunked = in_chunks(path, 3000)
    document, expected = assert_same_sums(chunked, whole)
    for key in ("operators", "slowest", "gaps", "bound", "training_steps"):
        assert document[key] == near(expected[key])


def test_analyze_in_chunks_keeps_the_configuration(tmp_path, small_pieces, in_chunks):
    path = write(tmp_path / "run.json", engine_run(blocks=12), config=CONFIG)
    assert in_chunks(path, 500).trace.metadata["glassworld"]["config"] == CONFIG


def long_layers(layers=3, parts=40):
    """Return layers longer than a chunk, whose operations run beside those of later chunks.

    The second half of each launches nothing. Also return the busy microseconds of each.
    """
    gpu, busy = GpuTrace(), []
    for layer in range(layers):
        ran = set()
        with gpu.tag(f"DiT_Layer_{layer}"):
            for part in range(parts):
                with gpu.tag("part"), gpu.op_range("aten::mm"):
                    if part < parts // 2:
                        gpu.correlation += 1
                        args = {"correlation": gpu.correlation}
                        gpu.event("cuda_runtime", "cudaLaunchKernel", gpu.now, 2, **args)
                        stream, start, dur = part % 5, round(gpu.now) + 5, 150 + 7 * part
                        row = {"pid": 0, "tid": stream, "stream": stream, "device": 0}
                        gpu.event("kernel", "gemm", start, dur, **row, **args)
                        ran |= set(range(start, start + dur))
                    gpu.wait(10)
                gpu.wait(10)
            gpu.wait(400)
        busy.append(len(ran))
    return gpu.events, busy


@pytest.mark.parametrize("rows", [40, 60, 90])
def test_layers_longer_than_a_chunk_count_overlapping_work_once(tmp_path, small_chunks, rows):
    events, busy = long_layers()
    path = write(tmp_path / "t.json", events, config=None)
    whole = layer_shares(analyze(path))
    assert [1000 * layer.ms for layer in whole] == pytest.approx(busy)
    with small_chunks(rows=rows):
        chunked = analyze(path)
        assert isinstance(chunked, MergedAnalysis)
        layers = layer_shares(chunked)
    assert [layer.count for layer in layers] == [1] * len(busy)
    assert [1000 * layer.ms for layer in layers] == pytest.approx(busy)
    assert [asdict(layer) for layer in layers] == near([asdict(layer) for layer in whole])


def test_layers_in_chunks_without_a_gpu_have_their_cpu_time(tmp_path, small_chunks):
    events = [event for event in long_layers()[0] if event["cat"] not in ("kernel", "cuda_runtime")]
    path = write(tmp_path / "t.json", events, config=None)
    whole = layer_shares(analyze(path))
    with small_chunks():
        layers = layer_shares(analyze(path))
    assert whole[0].ms > 0
    assert [asdict(layer) for layer in layers] == near([asdict(layer) for layer in whole])
