"""The commands, the comparison and the page."""

import json
import shutil

import pytest
from conftest import Clock, engine_run, write
from typer.testing import CliRunner

from glassworld.errors import TraceError
from glassworld.trace import analyze
from glassworld.trace.commands import app
from glassworld.trace.compare import compare

CHROMIUM = shutil.which("chromium")


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_report_writes_the_contract(run, tmp_path):
    out = tmp_path / "out.json"
    result = invoke("report", run(), "--json", out)
    assert result.exit_code == 0, result.output
    document = json.loads(out.read_text())
    tag = document["tags"][0]
    assert {"path", "name", "pattern", "instances", "cpu_ms", "self_cpu_ms"} <= set(tag)
    assert {"gpu_busy_ms", "gpu_span_ms", "gpu_kernels", "instances_detail"} <= set(tag)
    row = document["instances_detail"][0]
    assert set(row) == {"name", "start_ms", "cpu_ms", "gpu_busy_ms", "gpu_kernels"}
    assert document["coverage"]["gpu_ops"] == document["coverage"]["attributed"] == 0
    assert document["stages"][0]["name"] == "2_Pipeline_Inference"
    assert document["advice"] == []
    assert len(document["expected"]) == 8
    assert (tmp_path / "run_report.html").stat().st_size < 2_000_000


@pytest.mark.parametrize("command", ["top", "blocks", "steps", "ops", "gaps"])
def test_every_table_is_also_json(run, command):
    path = run(blocks=2)
    assert invoke(command, path).exit_code == 0
    rows = json.loads(invoke(command, path, "--json").output)
    assert isinstance(rows, list)
    assert bool(rows) == (command != "gaps")


def test_a_trace_without_tags_shows_operators(tmp_path):
    events = [e for e in engine_run(blocks=1) if e["cat"] != "user_annotation"]
    result = invoke("report", write(tmp_path / "untagged.json", events))
    assert result.exit_code == 0, result.output
    assert "no tags" in result.output
    assert "aten::addmm" in result.output


def test_noise_is_no_regression_but_a_slow_step_is(run):
    before = run("before.json")
    same = run("same.json", slow=lambda step, **_: 1.0)
    slower = run("slower.json", slow=lambda step, **_: 200.0 if step == 1 else 0.0)
    assert invoke("compare", before, same, "--fail-over", "5%").exit_code == 0
    result = invoke("compare", before, slower, "--fail-over", "5%")
    assert result.exit_code == 1
    worst = compare(analyze(before), analyze(slower)).regressions(0.05)
    assert worst[0].path[-1] == "2.3.{block}_Denoising_Step_1_t{timestep}"
    assert worst[0].total_ms == pytest.approx(8 * 4 * 0.2, rel=0.1)


def test_nothing_in_common_cannot_be_compared(run, tmp_path):
    clock = Clock()
    with clock.tag("something else"):
        clock.op("aten::add", 10)
    other = write(tmp_path / "other.json", clock.events)
    with pytest.raises(TraceError, match="no tag is in both"):
        compare(analyze(run()), analyze(other))


def test_ranks_are_merged_on_one_clock(tmp_path):
    paths = []
    for rank, late in enumerate((0.0, 3000.0)):
        clock = Clock(base=1000.0 + 50_000 * rank)  # this rank's clock is ahead
        with clock.tag("train"):
            for i in range(4):
                at = 10_000.0 * i
                clock.event("cuda_runtime", "cudaLaunchKernel", at, 1, correlation=i + 1)
                start = at + 5 + late
                args = {"correlation": i + 1, "stream": 7}
                clock.event("kernel", "ncclDevKernel", start, at + 5000 - start, pid=0, **args)
            clock.wait(50_000)
        paths.append(write(tmp_path / f"rank{rank}.json", clock.events))
    merged = tmp_path / "merged.json"
    ranks = json.loads(invoke("merge", *paths, "-o", merged, "--json").output)
    assert ranks[1]["offset_ms"] == pytest.approx(50)
    assert ranks[0]["waited_ms"] == pytest.approx(4 * 3)
    assert ranks[1]["waited_ms"] == 0
    both = analyze(merged)
    assert both.coverage.attributed == 8
    starts = both.tree.rows["start"]
    assert starts[0] == starts[1]


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_the_page_draws_itself_without_a_network(run):
    playwright = pytest.importorskip("playwright.sync_api")
    path = run(slow=lambda layer, **_: 900.0 if layer == 2 else 0.0)
    invoke("report", path)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 390, "height": 800})
        problems = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda r: r.url.startswith("file:") or problems.append(r.url))
        page.goto(path.with_name("run_report.html").as_uri())
        assert "DiT_Layer_2" in page.inner_text(".finding")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.keyboard.press("/")
        page.keyboard.type("vae_dec_head")
        assert page.locator("tr[data-search]:visible").count() >= 1
        assert page.locator("tr[data-search]:visible").count() < 5
        page.keyboard.press("Escape")
        page.locator(".icicle button").first.press("Enter")
        assert "times, CPU" in page.inner_text(".detail")
        assert problems == []
        browser.close()
