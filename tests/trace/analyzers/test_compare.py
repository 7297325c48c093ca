"""Two runs compared."""

import json

import pytest

from glassworld.errors import TraceError
from glassworld.trace import analyze
from glassworld.trace.analyzers.compare import compare_runs
from tests.support.traces import CpuTrace, GpuTrace, engine_run, invoke, write


def test_compare_runs_noise_is_no_regression_but_a_slow_step_is(run):
    before = run("before.json")
    same = run("same.json", slow=lambda step, **_: 1.0)
    slower = run("slower.json", slow=lambda step, **_: 200.0 if step == 1 else 0.0)
    assert invoke("compare", before, same, "--fail-over", "5%").exit_code == 0
    result = invoke("compare", before, slower, "--fail-over", "5%")
    assert result.exit_code == 1
    worst = compare_runs(analyze(before), analyze(slower)).regressions(0.05)
    assert worst[0].path[-1] == "2.3.{block}_Denoising_Step_1_t{timestep}"
    assert worst[0].total_ms == pytest.approx(8 * 4 * 0.2, rel=0.1)


def test_compare_runs_accepts_a_part_of_a_run(run, tmp_path):
    """What was open when the recording began is not in the trace: the part starts at a block."""
    slower = engine_run(slow=lambda layer, **_: 200.0 if layer >= 0 else 0.0)
    outer = ("1", "2_Pipeline", "2.1_", "3_")
    part = [e for e in slower if not e["name"].startswith(outer)]
    whole, blocks = run(), write(tmp_path / "part.json", part)
    there = compare_runs(analyze(whole), analyze(blocks))
    assert there.regressions(0.05)[0].path == ("2.3_Block_{block}",)
    assert all(path.startswith(outer) for path in there.only_before)
    assert "1_Data_Preparation > 1.2_VAE_Encode_FirstFrame" in there.only_before
    assert there.only_after == []
    assert invoke("compare", whole, blocks, "--fail-over", "5%").exit_code == 1
    back = compare_runs(analyze(blocks), analyze(whole))
    assert {change.path for change in back.changes} == {change.path for change in there.changes}


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [(0, 50_000, "slower"), (0.5, 50_000, "slower"), (50_000, 0, "faster"), (0, 0.5, "same")],
)
def test_compare_runs_judges_a_tag_that_took_no_time_in_one_of_them(
    tmp_path, before, after, verdict
):
    paths = []
    for name, dur in (("before.json", before), ("after.json", after)):
        clock = CpuTrace(base=0.0)
        for _ in range(5):
            with clock.tag("work"):
                clock.wait(dur)
            clock.wait(100_000)
        paths.append(write(tmp_path / name, clock.events, config=None))
    comparison = compare_runs(*map(analyze, paths))
    [change] = comparison.changes
    assert change.verdict == verdict
    assert bool(comparison.regressions(0.05)) == (verdict == "slower")


def test_compare_command_tells_tags_of_one_name_apart(run):
    shown = invoke("compare", run("a.json"), run("b.json")).output
    assert "DiT_Layer_0 in" in shown
    changes = json.loads(invoke("compare", run("a.json"), run("b.json"), "--json").output)
    assert f"... {len(changes) - 25} more: use --json" in shown


def test_compare_runs_never_mixes_gpu_and_cpu_time(tmp_path):
    def trace(name, *kinds):
        gpu = GpuTrace()
        for _ in range(4):
            with gpu.tag("step"):
                gpu.launch("gemm", 500.0)
                gpu.wait(100)
        return write(tmp_path / name, [e for e in gpu.events if e["cat"] in kinds])

    full = trace("full.json", "user_annotation", "cuda_runtime", "kernel")
    tags = trace("tags.json", "user_annotation")
    (change,) = compare_runs(analyze(full), analyze(tags)).changes
    assert change.verdict == "same"
    assert change.before_ms == change.after_ms == pytest.approx(0.102)
    assert "(CPU time)" in invoke("compare", full, tags).output
    assert "(GPU busy time)" in invoke("compare", full, full).output


def test_compare_runs_without_common_tags_raises(run, tmp_path):
    clock = CpuTrace()
    with clock.tag("something else"):
        clock.op("aten::add", 10)
    other = write(tmp_path / "other.json", clock.events)
    with pytest.raises(TraceError, match=r"no tag is in both.* --structure"):
        compare_runs(analyze(run()), analyze(other))


def test_compare_runs_loaded_period_of_one_run_is_no_regression(run):
    """Half a run a third slower moves every median of that run, and means nothing."""

    def loaded(block, layer, **_):
        return 300.0 if layer >= 0 and block >= 4 else 0.0

    before, after = run("before.json"), run("after.json", slow=loaded)
    assert invoke("compare", before, after, "--fail-over", "5%").exit_code == 0
    steady = run("steady.json", slow=lambda layer, **_: 300.0 if layer >= 0 else 0.0)
    assert invoke("compare", before, steady, "--fail-over", "5%").exit_code == 1
