"""A trace too large for memory is analysed in stretches, with the same sums as at once."""

from dataclasses import asdict

import numpy as np
import pytest

from glassworld.trace import analyze
from glassworld.trace.analyzers.caveats import find_caveats
from glassworld.trace.reading import columns as tables
from glassworld.trace.reading.columns import MEMORY, RANGE, EventTable
from glassworld.trace.report import json_export as export
from glassworld.trace.rules.rule import advise
from glassworld.trace.timeline import chunks as parts
from glassworld.trace.timeline import merged as large
from glassworld.trace.timeline.merged import MergedAnalysis
from tests.support.paths import SHARED
from tests.support.traces import CONFIG, Gpu, analysis_json, engine_run, write

TRACES = SHARED / "traces"
needs_traces = pytest.mark.skipif(not TRACES.is_dir(), reason="shared/traces is not here")


@pytest.fixture
def in_stretches(monkeypatch):
    """Analyses a trace in stretches of about so many rows, keeping so many rows' instances."""

    def run(path, rows, kept=10**9):
        monkeypatch.setattr(tables, "IN_MEMORY_ROWS", rows // 3)
        monkeypatch.setattr(tables, "SLICE_ROWS", rows // 2)
        monkeypatch.setattr(parts, "CHUNK_ROWS", rows)
        monkeypatch.setattr(large, "SAMPLED_ROWS", kept)
        analysis = analyze(path)
        assert isinstance(analysis, MergedAnalysis)
        return analysis

    return run


def gpu_run(steps):
    """Steps whose kernels outlast their launches, so that stretches cut a queue in two."""
    gpu = Gpu()
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


def same_sums(folded, whole):
    assert folded.coverage == whole.coverage
    assert folded.duration_ns == whole.duration_ns
    for mine, theirs in ((folded.tags, whole.tags), (folded.patterns, whole.patterns)):
        rows = {row.path: asdict(row) for row in mine}
        assert set(rows) == {row.path for row in theirs}
        for row in theirs:
            expected = asdict(row) | {"launch_delay_ms": pytest.approx(row.launch_delay_ms, rel=2)}
            for name in ("gpu_span_ms", "gpu_idle_ms", "gpu_self_ms", "gpu_busy_ms"):
                expected[name] = pytest.approx(expected[name], rel=0.02, abs=0.2)
            for name in ("cpu_ms", "self_cpu_ms", "gpu_sum_ms", "gpu_copy_ms"):
                expected[name] = pytest.approx(expected[name], rel=1e-9, abs=1e-9)
            assert rows[row.path] == expected
    operators = {row["name"]: row for row in analysis_json(folded)["operators"]}
    for row in analysis_json(whole)["operators"]:
        assert operators[row["name"]]["calls"] == row["calls"]
        assert operators[row["name"]]["cpu_ms"] == pytest.approx(row["cpu_ms"], abs=1e-5)
    assert analysis_json(folded)["kernels"] == analysis_json(whole)["kernels"]
    peaks = {(row.tag, row.device): row.peak_mib for row in whole.memory}
    assert {(row.tag, row.device): row.peak_mib for row in folded.memory} == peaks


@pytest.mark.parametrize("rows", [300, 1000])
def test_an_engine_run_in_stretches_has_the_same_sums(tmp_path, small_pieces, in_stretches, rows):
    path = write(tmp_path / "run.json", engine_run(blocks=24))
    whole = analyze(path)
    folded = in_stretches(path, rows)
    same_sums(folded, whole)
    assert folded.dropped_instances == 0
    assert analysis_json(folded)["instances_detail"] == analysis_json(whole)["instances_detail"]
    assert analysis_json(folded)["blocks"] == analysis_json(whole)["blocks"]
    assert analysis_json(folded)["expected"] == analysis_json(whole)["expected"]


@pytest.mark.parametrize("rows", [200, 900])
def test_a_gpu_run_in_stretches_finds_every_launch(tmp_path, small_pieces, in_stretches, rows):
    path = write(tmp_path / "gpu.json", gpu_run(60), config=None)
    whole = analyze(path)
    folded = in_stretches(path, rows)
    same_sums(folded, whole)
    assert folded.coverage.attributed == folded.coverage.gpu_ops == 60 * 6
    assert folded.gpu.busy_ns == pytest.approx(whole.gpu.busy_ns, rel=0.001)


def test_what_is_left_out_is_said_and_what_stands_out_is_kept(tmp_path, small_pieces, in_stretches):
    def slow(block, layer, **_):
        return 300_000.0 if (block, layer) == (57, -1) else 0.0

    path = write(tmp_path / "run.json", engine_run(blocks=80, slow=slow))
    whole = analyze(path)
    folded = in_stretches(path, 6000, kept=1500)
    same_sums(folded, whole)
    assert 0 < len(folded.tree) <= 1500
    assert len(folded.tree) + folded.dropped_instances >= len(whole.tree)
    assert any("sums are of all" in note for note in find_caveats(folded))
    found = [finding for finding in advise(folded) if finding.rule == "stall"]
    assert [finding.tag for finding in found] == ["2.3_Block_57"]
    document = analysis_json(folded)
    assert len(document["instances_detail"]) == len(folded.tree)
    assert document["blocks"][0]["block"] == 0


@needs_traces
@pytest.mark.parametrize("name", ["b200-vllm-eager", "h100-owlv2"])
def test_real_traces_in_stretches_have_the_same_sums(in_stretches, name):
    path = TRACES / f"{name}.json.gz"
    whole = analyze(path)
    folded = in_stretches(path, 3000)
    assert folded.coverage == whole.coverage
    rows = {row.path: row for row in folded.tags}
    for row in whole.tags:
        assert rows[row.path].gpu_kernels == row.gpu_kernels
        assert rows[row.path].instances == row.instances
        assert rows[row.path].cpu_ms == pytest.approx(row.cpu_ms)
        assert rows[row.path].gpu_busy_ms == pytest.approx(row.gpu_busy_ms, abs=0.01)


def test_a_table_reads_a_stretch_of_time_from_memory_and_disk():
    random = np.random.default_rng(3)
    for dtype, time in ((RANGE, "start"), (MEMORY, "at")):
        rows = np.zeros(1000, dtype)
        rows[time] = random.integers(0, 500, 1000)
        table = EventTable(dtype, limit=150)
        for at in range(0, 1000, 70):
            table.append(rows[at : at + 70])
        for start, end in ((0, 500), (100, 130), (499, 600), (600, 700), (250, 250)):
            inside = rows[(rows[time] >= start) & (rows[time] < end)]
            assert table.between(start, end).tolist() == inside.tolist()


def test_no_room_for_tables_is_one_clear_line(monkeypatch):
    def full(**_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tables.tempfile, "TemporaryFile", full)
    table = EventTable(RANGE, limit=10)
    with pytest.raises(tables.TraceError, match="TMPDIR"):
        table.append(np.zeros(20, RANGE))


def test_the_file_is_the_analysis_however_it_is_cut(tmp_path, monkeypatch):
    analysis = analyze(write(tmp_path / "run.json", engine_run(blocks=3)))
    whole = analysis_json(analysis)
    for at_once in (1, 7):
        monkeypatch.setattr(export, "_AT_ONCE", at_once)
        written = analysis_json(analysis)
        assert written == whole
    assert sum(tag["instances"] for tag in written["tags"]) == len(written["instances_detail"])


def test_configurations_survive(tmp_path, small_pieces, in_stretches):
    path = write(tmp_path / "run.json", engine_run(blocks=12), config=CONFIG)
    assert in_stretches(path, 500).trace.metadata["glassworld"]["config"] == CONFIG
