"""Blocks and denoising steps of a run whose times are known."""

import pytest

from glassworld.trace import analyze
from glassworld.trace.analyzers import blocks, breakdown
from glassworld.trace.report.sections import first_step_sentence


def test_block_and_step_times_of_a_known_run(run):
    analysis = analyze(run(blocks=5))
    stages = breakdown.stage_shares(analysis)
    assert stages[0].name == "2_Pipeline_Inference"
    assert sum(stage.share for stage in stages) == pytest.approx(1)
    found = blocks.block_times(analysis)
    assert [block.block for block in found] == [0, 1, 2, 3, 4]
    for block in found:
        assert block.steps_ms == pytest.approx(3 * 4 * 0.8, rel=0.03)
        assert block.update_ms == pytest.approx(4 * 0.8, rel=0.03)
        assert block.decode_ms == pytest.approx(4.5, rel=0.03)
        assert block.ms == pytest.approx(
            block.steps_ms + block.update_ms + block.decode_ms + block.other_ms
        )
    assert [(step.step, step.timestep) for step in blocks.step_times(analysis)] == [
        (0, 1000),
        (1, 908),
        (2, 714),
    ]
    [update] = breakdown.update_cost(analysis)
    assert update.share_of_transformer == pytest.approx(0.25, abs=0.01)


def test_first_step_comparisons_slower_step_names_its_tags(run):
    def slow(step, block, layer, **_):
        return 500.0 if step == 0 and block > 0 and layer == 1 else 0.0

    first, opening = blocks.first_step_comparisons(analyze(run(slow=slow)))
    assert first.significant
    assert first.times == pytest.approx((4 * 0.8 + 0.5) / (4 * 0.8), rel=0.02)
    assert first.reasons[0].tag == "DiT_Layer_{layer}"
    assert first.reasons[0].more_ms == pytest.approx(0.5, rel=0.1)
    assert not opening.significant


def test_first_step_comparisons_equal_steps_are_not_significant(run):
    steps = blocks.first_step_comparisons(analyze(run()))
    assert [step.significant for step in steps] == [False, False]
    assert all(step.times == pytest.approx(1, abs=0.03) for step in steps)


def test_first_step_comparisons_slow_first_block_does_not_blame_the_step(run):
    def slow(block, layer, **_):
        return 800.0 if block == 0 and layer >= 0 else 0.0

    first, opening = blocks.first_step_comparisons(analyze(run(slow=slow)))
    assert not first.significant
    assert opening.significant
    assert opening.times == pytest.approx(2, rel=0.05)
    assert first_step_sentence(first).startswith("In later blocks the first step takes ")
    assert first_step_sentence(opening).startswith("The first block's steps take ")
