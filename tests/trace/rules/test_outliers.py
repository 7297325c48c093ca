"""Rules about single instances: a planted stall is found, a loaded machine's noise is not."""

import pytest

from tests.support.advised import findings, only, preempted
from tests.support.traces import engine_run, write


@pytest.mark.parametrize("seed", range(5))
def test_noise_of_a_loaded_machine_is_no_stall(run, seed):
    assert findings(run(slow=preempted(seed), blocks=12)) == {}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_stall_among_the_noise_of_a_loaded_machine_is_found(run, seed):
    noise = preempted(seed)

    def slow(block, layer, **where):
        planted = 200_000.0 if (block, layer) == (7, -1) else 0.0
        return planted + noise()

    found = only(run(slow=slow, blocks=12))
    assert (found.rule, found.tag) == ("stall", "2.3_Block_7")


def test_stall_of_a_block_is_found_there(run):
    found = only(run(slow=lambda block, layer, **_: 50_000.0 if (block, layer) == (4, -1) else 0))
    assert (found.rule, found.tag) == ("stall", "2.3_Block_4")
    assert found.gain_ms == pytest.approx(50, rel=0.02)


def test_stall_of_a_layer_is_found_there(run):
    def slow(block, step, layer, **_):
        return 90_000.0 if (block, step, layer) == (3, 1, 2) else 0.0

    found = only(run(slow=slow))
    assert (found.rule, found.tag) == ("stall", "DiT_Layer_2")
    assert "block 3, step 1, layer 2" in found.what


def test_stall_in_a_run_of_four_blocks_is_found(run):
    found = only(
        run(blocks=4, slow=lambda block, layer, **_: 80_000.0 if (block, layer) == (2, -1) else 0)
    )
    assert (found.rule, found.tag) == ("stall", "2.3_Block_2")


def test_pause_between_blocks_is_a_stall(tmp_path):
    events = engine_run()
    late = next(event["ts"] for event in events if event["name"] == "2.3_Block_5")
    for event in events:
        if event["ts"] >= late:
            event["ts"] += 60_000
        elif event["name"] == "2_Pipeline_Inference":
            event["dur"] += 60_000
    found = only(write(tmp_path / "paused.json", events))
    assert (found.rule, found.tag) == ("stall", "2.3_Block_5")


def test_step_that_is_slow_once_is_named_whole(run):
    def slow(block, step, layer, **_):
        return 18_000.0 if (block, step) == (4, 1) and layer >= 0 else 0.0

    found = only(run(slow=slow))
    assert (found.rule, found.tag) == ("slow-once", "2.3.4_Denoising_Step_1_t908")
    assert found.gain_ms == pytest.approx(4 * 18, rel=0.02)


def test_slow_first_block_is_a_slow_start(run):
    found = only(run(slow=lambda block, layer, **_: 70_000.0 if (block, layer) == (0, -1) else 0))
    assert (found.rule, found.tag) == ("slow-start", "2.3_Block_0")
