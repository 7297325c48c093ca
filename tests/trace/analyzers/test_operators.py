"""Operators under a tag."""

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
