"""Six real traces of other programs, with figures found independently."""

import functools
import json
from collections import defaultdict

import numpy as np
import pytest
from typer.testing import CliRunner

from glassworld.errors import TraceError
from glassworld.trace import analyze
from glassworld.trace.analyzers.compare import compare_runs
from glassworld.trace.cli import app
from glassworld.trace.cli.report import SECTION_HELP
from glassworld.trace.report.sections import SECTIONS
from glassworld.trace.timeline import merged
from tests.support.paths import SHARED

TRACES = SHARED / "traces"
pytestmark = pytest.mark.skipif(not TRACES.is_dir(), reason="shared/traces is not here")

analysis_of = functools.cache(analyze)

# file, start of the tag's name, per instance: CPU ms, GPU operations, busy ms
EXPECTED = [
    ("mi300x-sd3.5-diffusion", "model_inference", [(1194.81, 8066, 712.49)]),
    (
        "mi300x-sd3.5-diffusion",
        "## Call CompiledFxGraph fp5r",
        [
            (248.55, 1097, 157.55),
            (246.82, 1098, 157.30),
            (246.98, 1098, 157.00),
            (247.42, 1098, 155.80),
        ],
    ),
    ("h100-timesformer", "ProfilerStep#6", [(382.54, 534, 158.43)]),
    ("h100-owlv2", "ProfilerStep#6", [(1211.18, 5165, 566.76)]),
    ("sglang-prefill-decode", "step[EXTEND bs=15 toks=15360]", [(28.92, 524, 492.69)]),
    ("vllm-decode-cuda-graph", "execute_32_", [(2.41, 434, 10.72)]),
]


@pytest.mark.parametrize(("file", "start", "expected"), EXPECTED)
def test_busy_time_equals_independent_figures(file, start, expected):
    analysis = analysis_of(TRACES / f"{file}.json.gz")
    tree = analysis.tree
    found = [i for i in range(len(tree)) if tree.instance_name(i).startswith(start)]
    found.sort(key=lambda i: tree.rows["start"][i])
    measured = [
        (
            analysis.tree.rows["dur"][i] / 1e6,
            analysis.device.kernels[i],
            analysis.device.busy[i] / 1e6,
        )
        for i in found
    ]
    assert len(measured) == len(expected)
    for (cpu, kernels, busy), (cpu_expected, kernels_expected, busy_expected) in zip(
        measured, expected, strict=True
    ):
        assert cpu == pytest.approx(cpu_expected, abs=0.01)
        assert kernels == kernels_expected
        assert busy == pytest.approx(busy_expected, abs=0.01)


def test_busy_time_counts_dependent_launches_once():
    analysis = analysis_of(TRACES / "b200-vllm-eager.json.gz")
    tag = next(tag for tag in analysis.tags if tag.name.startswith("execute_context_1"))
    assert tag.gpu_kernels == 929
    assert tag.cpu_ms == pytest.approx(87.41, abs=0.01)
    assert tag.gpu_busy_ms == pytest.approx(11.60, abs=0.01)
    assert tag.gpu_sum_ms == pytest.approx(11.67, abs=0.01)


every_trace = pytest.mark.parametrize(
    "path", sorted(TRACES.glob("*.json.gz")), ids=lambda path: path.name
)


@every_trace
def test_every_gpu_operation_finds_its_launch_and_its_tag(path):
    coverage = analysis_of(path).coverage
    assert coverage.gpu_ops > 0
    assert coverage.launched == coverage.attributed == coverage.gpu_ops


@every_trace
def test_self_time_children_and_idle_add_up_to_the_whole(path):
    analysis = analysis_of(path)
    rows = {row.path: row for row in analysis.tags}
    inside: dict[object, np.ndarray] = defaultdict(lambda: np.zeros(2))
    for tag, row in rows.items():
        inside[tag[:-1]] += (row.cpu_ms, row.gpu_busy_ms)
    for tag, row in rows.items():
        cpu, busy = inside[tag]
        assert row.self_cpu_ms + cpu == pytest.approx(row.cpu_ms, rel=0.001)
        assert row.gpu_self_ms + busy == pytest.approx(row.gpu_busy_ms, rel=0.001, abs=1e-6)
        if row.instances == 1:
            assert row.gpu_busy_ms + row.gpu_idle_ms == pytest.approx(row.gpu_span_ms, rel=0.001)
    busy = analysis.ops.exclusive.sum() / 1e6
    assert sum(row.gpu_self_ms for row in rows.values()) == pytest.approx(busy, rel=0.001)


@every_trace
@pytest.mark.parametrize(
    "command", ["report", "top", *SECTION_HELP, "roofline", "ops", "kernels", "advice", "gaps"]
)
def test_every_command_prints_rows_or_what_is_missing(path, command, tmp_path, monkeypatch):
    if command != "report":  # which reads the file itself; the others get what was read before
        monkeypatch.setattr(merged, "analyze", lambda *_, **__: analysis_of(path))
    extra = ["--html", str(tmp_path / "page.html")] if command == "report" else ["--json"]
    result = CliRunner().invoke(app, [command, str(path), *extra])
    assert result.exit_code == 0, result.output
    if command == "report":
        assert "Findings" in result.output
        sections = [section for section in SECTIONS if section.mentioned(analysis_of(path))]
        assert all(section.title in result.output for section in sections)  # shown or missing
        assert (tmp_path / "page.html").stat().st_size < 2_000_000
    else:
        assert isinstance(json.loads(result.output), list)


@every_trace
def test_compare_runs_with_itself_finds_no_change(path):
    analysis = analysis_of(path)
    verdicts = {change.verdict for change in compare_runs(analysis, analysis).changes}
    assert verdicts <= {"same", "unknown"}


def test_compare_runs_of_two_programs_raises():
    with pytest.raises(TraceError, match="no tag is in both"):
        compare_runs(
            *(analysis_of(TRACES / f"{name}.json.gz") for name in ("b200-vllm-eager", "h100-owlv2"))
        )
