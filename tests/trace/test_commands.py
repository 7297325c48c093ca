"""The commands, the comparison and the page."""

import json

import pytest
from conftest import Clock, engine_run, write
from typer.testing import CliRunner

from glassworld.errors import TraceError
from glassworld.trace import analyze
from glassworld.trace.commands import app
from glassworld.trace.compare import compare


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
