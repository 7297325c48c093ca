"""Tables stay readable in a terminal of 80 columns."""

import re

import pytest

from glassworld.profiling.registry import DIFFUSION_FORWARD
from glassworld.trace.report.sections import SECTIONS
from tests.support.traces import CONFIG, CpuTrace, GpuTrace, engine_run, invoke, write

KERNEL = "void at::native::(anonymous namespace)::vectorized_layer_norm_kernel<float, float>(int)"


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


def test_roofline_fits_eighty_columns(run, store_peak_rates):
    store_peak_rates(matmul=123_456.0, conv=98_765.0)
    shown = invoke("roofline", run(config=CONFIG | {"frame_rate": 12})).output
    rows = [line for line in shown.splitlines() if line.startswith(("DiT_", "VAE_"))]
    assert {row.split()[0] for row in rows} >= {"DiT_Self_Attention", "VAE_Dec_Upsample_Blocks"}
    assert all(row.rstrip().endswith(("arithmetic", "memory")) for row in rows)
    assert len(shown.splitlines()) == len(rows) + 4  # an empty line, the title, two of headings


def test_columns_without_values_are_left_out(run):
    shown = invoke("roofline", run()).output
    assert "GFLOP/s" in shown
    assert not re.search("attainable|reached|bound", shown, re.MULTILINE)


def test_cut_names_have_dots_and_begin_at_the_left(tmp_path):
    gpu = GpuTrace()
    with gpu.tag("a_tag_of_many_words" * 4):
        gpu.launch("first", 50)
        gpu.op("aten::nonzero", 5000)
        gpu.launch(KERNEL, 50)
        gpu.op("package/of/many/words/" * 5 + "module.py(12): forward", 5000)
        gpu.launch("k" * 100, 50)
    trace = write(tmp_path / "gpu.json", gpu.events, config=None)
    assert f"{'k' * 50}" in (kernels := invoke("kernels", trace).output)
    assert "k...  " in kernels
    gaps = invoke("gaps", trace).output
    assert gaps.count("...") >= 3
    assert re.search(r"^\.\.\.", gaps, re.MULTILINE)
    assert re.search(r"  a_tag_of_", gaps)


def test_findings_and_missing_sections_stay_indented(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")  # so that a line wraps in both
    trace = run(slow=lambda layer, **_: 900.0 if layer == 2 else 0.0)
    shown = invoke("report", trace).output.splitlines()
    heading = next(i for i, line in enumerate(shown) if line == "Findings")
    finding = shown[heading + 1 : shown.index("", heading)]
    assert finding[0].startswith("  slow-layer: DiT_Layer_2 takes")
    assert finding[-1].startswith("    ")
    assert "Gain: up to" in " ".join(finding)
    missing = shown[shown.index("Not in this trace") + 1 : -2]
    assert len(missing) > 3
    assert all(line.startswith("  ") for line in (*finding, *missing))


def test_operators_of_the_diffusion_model_alone_are_called_so(run, tmp_path):
    shown = invoke("report", run()).output.splitlines()
    assert f"Operators of {DIFFUSION_FORWARD}" in [line.strip() for line in shown]
    gpu = GpuTrace()
    gpu.launch("kernel", 50)
    shown = invoke("report", write(tmp_path / "a.json", gpu.events, config=None)).output
    assert "GPU kernels" in [line.strip() for line in shown.splitlines()]


def test_rounding_errors_are_shown_as_zero(run):
    shown = invoke("blocks", run(blocks=12)).output
    assert "decode" in shown
    assert not re.search(r"\de-\d\d", shown)


@pytest.mark.parametrize(
    ("command", "heading"),
    [
        ("top", "kernels"),
        ("top", "GPU"),
        ("stages", "CPU ms"),
        ("model", "CPU ms"),
        ("decoder", "CPU ms"),
        ("ops", "GPU ms"),
        ("report", "GPU ms"),
    ],
)
def test_gpu_columns_are_shown_only_with_gpu_work(run, tmp_path, command, heading):
    """Without one they would be zeros, or the CPU's time twice."""
    gpu = GpuTrace()
    for tag in ("DiT_Feed_Forward", "VAE_Dec_Head"):
        with gpu.tag(tag), gpu.op_range("aten::mm"):
            gpu.launch("gemm", 300)
    assert heading in invoke(command, write(tmp_path / "gpu.json", gpu.events)).output
    assert heading not in invoke(command, run(blocks=2)).output


def test_report_has_the_heading_of_every_section_after_the_findings(run):
    lines = invoke("report", run()).output.splitlines()
    places = [lines.index("Findings: none; no rule found a problem.")]
    for section in (part for part in SECTIONS if not (part.of_others or part.optional)):
        heads = (section.title, f"  {section.title}: {section.missing}."[:40])
        places.append(next(i for i, line in enumerate(lines) if line.rstrip().startswith(heads)))
    assert places[0] == min(places)


def test_report_of_a_trace_without_tags_shows_operators(tmp_path):
    events = [e for e in engine_run(blocks=1) if e["cat"] != "user_annotation"]
    result = invoke("report", write(tmp_path / "untagged.json", events))
    assert result.exit_code == 0, result.output
    assert "no tags" in result.output
    assert "aten::addmm" in result.output


def test_report_of_another_program_mentions_no_section_of_the_engine(tmp_path):
    gpu = GpuTrace()
    for step in range(3):
        with gpu.tag(f"step[DECODE bs={step}]"), gpu.op_range("aten::mm"):
            gpu.launch("gemm", 300)
    path = write(tmp_path / "other.json", gpu.events, config=None)
    report = invoke("report", path, "--html", tmp_path / "page.html").output
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    for section in SECTIONS:
        assert not section.of_engine or section.title not in report
    assert "Memory: no allocations" in report
    assert "Training steps" not in report  # a serving engine's trace
    assert '"mentioned":false' in page


def test_remark_counts_the_time_in_tags_of_several_threads_once(tmp_path):
    clock = CpuTrace()
    for thread, start in ((1, 0), (2, 10), (3, 20)):
        for i in range(4):
            clock.event("user_annotation", "worker", start + 100 * i, 40, tid=thread)
    clock.now = 300
    clock.op("aten::mm", 100)
    path = write(tmp_path / "threads.json", clock.events, config=None)
    moments = {
        moment
        for event in clock.events[:-1]
        for moment in range(int(event["ts"] - clock.base), int(event["ts"] - clock.base) + 40)
    }
    assert len(moments) == 4 * 60
    shown = " ".join(invoke("stages", path).output.split())
    assert "The tags cover 60.0% of the window" in shown
    assert "in 0.24 ms, their times add up to 0.48 ms; shares are of the sum" in shown


def test_a_name_of_thousands_of_characters_takes_a_few_lines(tmp_path):
    clock = CpuTrace()
    with clock.tag(10_000 * "x"):
        clock.op("aten::mm", 250)
    path = write(tmp_path / "long.json", clock.events, config=None)
    for command in ("report", "stages"):
        output = invoke(command, path).output
        assert 400 < output.count("x") < 4_000, command
        assert "xxx..." in output.replace("\n", "")


def test_remarks_say_what_tags_cover_and_that_steps_do_not_train(tmp_path):
    clock = CpuTrace()
    with clock.tag("ProfilerStep#0"):
        clock.op("aten::mm", 250)
    clock.op("aten::mm", 750)
    path = write(tmp_path / "part.json", clock.events, config=None)
    assert "The tags cover 25.0% of the window" in invoke("stages", path).output
    assert "these steps do not train" in invoke("training", path).output
    gpu = GpuTrace()
    with gpu.tag("half"):
        gpu.launch("gemm", 300)
    gpu.wait(10)
    gpu.launch("gemm", 300)
    path = write(tmp_path / "gpu.json", gpu.events, config=None)
    assert "The tags cover 50.0% of the GPU's busy time" in invoke("stages", path).output
    gpu.wait(10)
    with gpu.tag("more"):
        gpu.launch("gemm", 3000)
    path = write(tmp_path / "most.json", gpu.events, config=None)
    assert "cover" not in invoke("stages", path).output
