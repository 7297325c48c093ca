"""Operators under a tag."""

import pytest

from glassworld.trace import analyze
from glassworld.trace.analyzers.operators import launched_by_operators, operator_rows
from tests.support.traces import GpuTrace, write


def test_operator_rows_under_a_tag(run):
    rows = operator_rows(analyze(run(blocks=2)), "DiT_Feed_Forward")
    assert [row.name for row in rows] == ["aten::addmm"]
    assert rows[0].calls == 2 * 4 * 4
    assert rows[0].share == 1


def test_launched_by_operators_reports_the_share_outside_operators(tmp_path):
    """A graph's kernels have no operator: shares of the operators' are no shares of the run."""
    gpu = GpuTrace()
    with gpu.tag("replay"):
        gpu.launch("graph", 900)
    with gpu.tag("head"), gpu.op_range("aten::mm"):
        gpu.launch("gemm", 100)
    analysis = analyze(write(tmp_path / "gpu.json", gpu.events, config=None))
    [remark] = launched_by_operators(analysis)
    assert "launched 10% of the GPU" in remark
    assert launched_by_operators(analysis, "head") == []
    assert "launched 0% of the GPU" in launched_by_operators(analysis, "replay")[0]


def test_time_of_an_operator_that_calls_itself_counts_once(tmp_path, small_chunks):
    """A reduction calls its other overload, which has the same name."""
    gpu = GpuTrace()
    for _ in range(30):
        with gpu.op_range("aten::mean"):
            gpu.wait(10)
            with gpu.op_range("aten::div"), gpu.op_range("aten::mean"):
                gpu.launch("reduce", 50)
                gpu.wait(20)
        gpu.wait(100)
    path = write(tmp_path / "nested.json", gpu.events, config=None)
    whole = analyze(path)
    with small_chunks():
        chunked = analyze(path)
    for analysis in (whole, chunked):
        mean, div = (
            next(row for row in operator_rows(analysis) if row.name == name)
            for name in ("aten::mean", "aten::div")
        )
        assert (mean.calls, div.calls) == (60, 30)
        assert mean.cpu_ms == pytest.approx(30 * 0.010 + div.cpu_ms)
        assert mean.self_cpu_ms == pytest.approx(mean.cpu_ms)
        assert mean.gpu_ms == mean.gpu_self_ms == pytest.approx(30 * 0.050)
