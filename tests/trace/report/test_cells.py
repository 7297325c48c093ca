"""Tables stay readable in a terminal of 80 columns."""

import re

import pytest

from glassworld.trace.report.cells import wrapped
from tests.support.traces import CONFIG, Gpu, invoke, write

KERNEL = "void at::native::(anonymous namespace)::vectorized_layer_norm_kernel<float, float>(int)"


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("DiT_Head", 20, ["DiT_Head"]),
        ("DiT_Self_Attention", 12, ["DiT_Self_", "Attention"]),
        ("DiT_Head in Generator_Forward", 20, ["DiT_Head in", "Generator_Forward"]),
        ("  cache update", 20, ["  cache update"]),
        ("abcdefgh", 3, ["abc", "def", "gh"]),
        ("", 5, [""]),
    ],
)
def test_names_break_where_their_words_end(text, width, lines):
    assert wrapped(text, width) == lines


@pytest.mark.parametrize("width", [1, 7, 20, 100])
def test_nothing_of_a_name_is_lost_and_no_line_is_too_wide(width):
    lines = wrapped(KERNEL, width)
    assert "".join(lines).replace(" ", "") == KERNEL.replace(" ", "")
    assert max(map(len, lines)) <= width


def test_the_roofline_of_a_run_needs_no_folding(run, ceilings):
    ceilings(matmul=123_456.0, conv=98_765.0)
    shown = invoke("roofline", run(config=CONFIG | {"frame_rate": 12})).output
    rows = [line for line in shown.splitlines() if line.startswith(("DiT_", "VAE_"))]
    assert {row.split()[0] for row in rows} >= {"DiT_Self_Attention", "VAE_Dec_Upsample_Blocks"}
    assert all(row.rstrip().endswith(("arithmetic", "memory")) for row in rows)
    assert len(shown.splitlines()) == len(rows) + 4  # an empty line, the title, two of headings


def test_columns_without_any_value_are_left_out(run):
    shown = invoke("roofline", run()).output
    assert "GFLOP/s" in shown
    assert not re.search("attainable|reached|bound", shown, re.MULTILINE)


def test_what_was_cut_off_a_name_is_marked_and_names_begin_at_the_left(tmp_path):
    gpu = Gpu()
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


def test_lines_of_advice_and_of_what_is_missing_stay_indented(run):
    trace = run(slow=lambda layer, **_: 900.0 if layer == 2 else 0.0)
    shown = invoke("report", trace).output.splitlines()
    heading = next(i for i, line in enumerate(shown) if line == "Findings")
    finding = shown[heading + 1 : shown.index("", heading)]
    assert finding[0].startswith("  slow-layer DiT_Layer_2 takes")
    assert finding[-1].startswith("    ")
    assert "Gain: up to" in " ".join(finding)
    missing = shown[shown.index("Not in this trace") + 1 : -2]
    assert len(missing) > 3
    assert all(line.startswith("  ") for line in (*finding, *missing))
