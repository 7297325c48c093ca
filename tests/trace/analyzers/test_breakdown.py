"""The parts of a run."""

import pytest

from glassworld.trace import analyze
from glassworld.trace.analyzers import breakdown
from glassworld.trace.analyzers.operators import kernel_rows
from tests.support.traces import CpuTrace, GpuTrace, write


def test_stage_shares_of_another_program_are_its_outermost_tags_with_parts(tmp_path):
    gpu = GpuTrace()
    with gpu.tag("ProfilerStep#7"):
        with gpu.tag("forward"), gpu.op_range("aten::mm"):
            gpu.launch("gemm", 300)
        with gpu.tag("backward"), gpu.op_range("aten::mm"):
            gpu.launch("gemm", 600)
        gpu.wait(1)
        gpu.launch("zero", 100)
        gpu.wait(2000)
    analysis = analyze(write(tmp_path / "gpu.json", gpu.events, config=None))
    stages = breakdown.stage_shares(analysis)
    assert [(stage.name, round(stage.share, 3)) for stage in stages] == [
        ("backward", 0.6),
        ("forward", 0.3),
        ("(the rest of ProfilerStep#7)", 0.1),
    ]
    assert [row.name for row in breakdown.slowest_tags(analysis)[:2]] == ["backward", "forward"]
    kernels = kernel_rows(analysis)
    assert [(row.name, row.calls) for row in kernels] == [("gemm", 2), ("zero", 1)]
    assert [row.ms for row in kernels] == pytest.approx([0.9, 0.1])
    assert [row.name for row in kernel_rows(analysis, "forward")] == ["gemm"]


def test_stage_shares_inside_several_lone_tags_are_of_the_outermost_one(tmp_path):
    clock = CpuTrace()
    with clock.tag("main"):
        clock.wait(40)
        with clock.tag("epoch"):
            clock.wait(20)
            with clock.tag("forward"):
                clock.wait(30)
            with clock.tag("backward"):
                clock.wait(10)
    stages = breakdown.stage_shares(analyze(write(tmp_path / "t.json", clock.events, config=None)))
    assert {stage.name: stage.ms for stage in stages} == pytest.approx(
        {"(the rest of main)": 0.06, "forward": 0.03, "backward": 0.01}
    )
    assert {stage.name: stage.share for stage in stages} == pytest.approx(
        {"(the rest of main)": 0.6, "forward": 0.3, "backward": 0.1}
    )


def test_stage_shares_lone_tag_is_a_stage_however_short(tmp_path):
    clock = CpuTrace()
    with clock.tag("mine"):
        pass
    [part] = breakdown.stage_shares(analyze(write(tmp_path / "lone.json", clock.events)))
    assert (part.name, part.ms, part.count) == ("mine", 0, 1)


def test_slowest_tags_of_one_name_are_told_apart_by_place(run):
    found = {(row.name, row.within) for row in breakdown.slowest_tags(analyze(run(blocks=2)))}
    attention = {within for name, within in found if name == "DiT_Self_Attention"}
    assert attention == {
        "Generator_Forward",
        "Generator_Forward_Final",
        "2.3.{block}_Update_KV_Cache",
    }
    assert ("VAE_Dec_Head", "") in found


def test_update_cost_with_fifty_steps_is_two_percent(run):
    analysis = analyze(run(blocks=2, steps=tuple(range(1000, 0, -20))))
    [update] = breakdown.update_cost(analysis)
    assert update.share_of_transformer == pytest.approx(1 / 51, abs=0.001)
