"""Rules about the whole run: slow steps and layers, drift, real time."""

import pytest

from tests.support.advised import findings, only, preempted
from tests.support.traces import CONFIG


def test_slow_step_is_found(run):
    found = only(run(slow=lambda step, **_: 400.0 if step == 1 else 0.0))
    assert (found.rule, found.tag) == ("slow-step", "Denoising_Step_1_t908")
    assert found.gain_ms == pytest.approx(8 * 1.6, rel=0.05)


def test_slow_layer_is_found(run):
    found = only(run(slow=lambda layer, **_: 900.0 if layer == 2 else 0.0))
    assert (found.rule, found.tag) == ("slow-layer", "DiT_Layer_2")
    assert found.gain_ms == pytest.approx(8 * 4 * 0.9, rel=0.05)


@pytest.mark.parametrize("seed", range(3))
def test_slow_step_and_slow_layer_on_a_loaded_machine_are_found(run, seed):
    noise = preempted(seed)

    def slow(step, layer, **_):
        return 4_000.0 * (step == 2) + 6_000.0 * (layer == 1) + noise()

    assert set(findings(run(slow=slow, blocks=12))) == {
        ("slow-step", "Denoising_Step_2_t714"),
        ("slow-layer", "DiT_Layer_1"),
    }


def test_growing_blocks_are_drift(run):
    def slow(block, layer, step, **_):
        return 80.0 * block if layer >= 0 and step >= 0 else 0.0

    assert only(run(slow=slow)).rule == "drift"


def test_blocks_slower_than_they_play_are_behind_real_time(run):
    block_ms = (3 + 1) * 4 * 0.8 + 4.5
    for rate, late in ((300, False), (1200, True)):
        found = findings(run(config=CONFIG | {"frame_rate": rate}))
        assert set(found) == ({("real-time", "2.3_Block_{block}")} if late else set())
    [found] = found.values()
    assert found.value == pytest.approx(block_ms / (12_000 / 1200), rel=0.03)
    assert "denoising" in found.change
