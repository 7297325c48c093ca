"""What was planted in a run is named, by the rule that is for it; a healthy run gets no advice."""

import random
from pathlib import Path

import pytest

from glassworld.trace.advice import RULES
from tests.support.advised import findings, only
from tests.support.paths import ROOT, SHARED
from tests.support.traces import CONFIG, engine_run, write

TRACES = SHARED / "traces"
needs_traces = pytest.mark.skipif(not TRACES.is_dir(), reason="shared/traces is not here")


def preempted(seed):
    """What a loaded machine does: now and then the thread loses its processor for a while."""
    generator = random.Random(seed)

    def slow(**_):
        return generator.uniform(2_000, 18_000) if generator.random() < 0.05 else 0.0

    return slow


def test_a_healthy_run_gets_no_advice(run):
    assert findings(run()) == {}


@pytest.mark.parametrize("seed", range(5))
def test_a_loaded_machine_is_no_stall(run, seed):
    assert findings(run(slow=preempted(seed), blocks=12)) == {}


@pytest.mark.parametrize("seed", range(5))
def test_a_stall_is_found_among_the_noise_of_a_loaded_machine(run, seed):
    noise = preempted(seed)

    def slow(block, layer, **where):
        planted = 200_000.0 if (block, layer) == (7, -1) else 0.0
        return planted + noise()

    found = only(run(slow=slow, blocks=12))
    assert (found.rule, found.tag) == ("stall", "2.3_Block_7")


def test_a_stall_is_found_where_it_happened(run):
    found = only(run(slow=lambda block, layer, **_: 50_000.0 if (block, layer) == (4, -1) else 0))
    assert (found.rule, found.tag) == ("stall", "2.3_Block_4")
    assert found.gain_ms == pytest.approx(50, rel=0.02)


def test_a_stall_deep_inside_is_found_where_it_happened(run):
    def slow(block, step, layer, **_):
        return 90_000.0 if (block, step, layer) == (3, 1, 2) else 0.0

    found = only(run(slow=slow))
    assert (found.rule, found.tag) == ("stall", "DiT_Layer_2")
    assert "block 3, step 1, layer 2" in found.what


def test_a_short_run_is_enough_for_a_stall(run):
    found = only(
        run(blocks=4, slow=lambda block, layer, **_: 80_000.0 if (block, layer) == (2, -1) else 0)
    )
    assert (found.rule, found.tag) == ("stall", "2.3_Block_2")


def test_a_pause_between_blocks_is_found(tmp_path):
    events = engine_run()
    late = next(event["ts"] for event in events if event["name"] == "2.3_Block_5")
    for event in events:
        if event["ts"] >= late:
            event["ts"] += 60_000
        elif event["name"] == "2_Pipeline_Inference":
            event["dur"] += 60_000
    found = only(write(tmp_path / "paused.json", events))
    assert (found.rule, found.tag) == ("stall", "2.3_Block_5")


def test_a_step_that_is_slow_once_is_named_whole(run):
    def slow(block, step, layer, **_):
        return 18_000.0 if (block, step) == (4, 1) and layer >= 0 else 0.0

    found = only(run(slow=slow))
    assert (found.rule, found.tag) == ("slow-once", "2.3.4_Denoising_Step_1_t908")
    assert found.gain_ms == pytest.approx(4 * 18, rel=0.02)


def test_a_slow_first_block_is_no_stall_but_a_slow_start(run):
    found = only(run(slow=lambda block, layer, **_: 70_000.0 if (block, layer) == (0, -1) else 0))
    assert (found.rule, found.tag) == ("slow-start", "2.3_Block_0")


def test_a_slow_step_is_found(run):
    found = only(run(slow=lambda step, **_: 400.0 if step == 1 else 0.0))
    assert (found.rule, found.tag) == ("slow-step", "Denoising_Step_1_t908")
    assert found.gain_ms == pytest.approx(8 * 1.6, rel=0.05)


def test_a_slow_layer_is_found(run):
    found = only(run(slow=lambda layer, **_: 900.0 if layer == 2 else 0.0))
    assert (found.rule, found.tag) == ("slow-layer", "DiT_Layer_2")
    assert found.gain_ms == pytest.approx(8 * 4 * 0.9, rel=0.05)


@pytest.mark.parametrize("seed", range(3))
def test_a_slow_step_and_a_slow_layer_are_found_on_a_loaded_machine(run, seed):
    noise = preempted(seed)

    def slow(step, layer, **_):
        return 4_000.0 * (step == 2) + 6_000.0 * (layer == 1) + noise()

    assert set(findings(run(slow=slow, blocks=12))) == {
        ("slow-step", "Denoising_Step_2_t714"),
        ("slow-layer", "DiT_Layer_1"),
    }


def test_growing_blocks_are_found(run):
    def slow(block, layer, step, **_):
        return 80.0 * block if layer >= 0 and step >= 0 else 0.0

    assert only(run(slow=slow)).rule == "drift"


def test_blocks_slower_than_they_play_are_found(run):
    block_ms = (3 + 1) * 4 * 0.8 + 4.5
    for rate, late in ((300, False), (1200, True)):
        found = findings(run(config=CONFIG | {"frame_rate": rate}))
        assert set(found) == ({("real-time", "2.3_Block_{block}")} if late else set())
    [found] = found.values()
    assert found.value == pytest.approx(block_ms / (12_000 / 1200), rel=0.03)
    assert "denoising" in found.change


@pytest.mark.parametrize(("gflops", "far"), [(20.0, False), (100.0, True)])
def test_a_tag_far_from_the_machines_roof_is_found(run, ceilings, gflops, far):
    ceilings(matmul=gflops, conv=1000.0, copy=1e6)
    found = findings(run())
    assert set(found) == ({("far-from-roof", "DiT_Feed_Forward")} if far else set())


def test_the_guide_lists_every_rule_as_it_is():
    guide = (ROOT / "docs" / "trace.md").read_text()
    for rule in RULES:
        assert f"| {rule.name} | {rule.fires_when} | {rule.limit} |" in guide


def test_every_rule_was_tried():
    """Each rule's name is in a test of these files, which plant what it looks for."""
    files = ("test_rules.py", "test_hardware.py")
    source = "".join(Path(__file__).with_name(name).read_text() for name in files)
    assert [rule.name for rule in RULES if f'"{rule.name}"' not in source] == []


@needs_traces
@pytest.mark.parametrize(
    ("file", "rules"),
    [
        ("b200-vllm-eager", {"launch-bound"}),
        ("h100-owlv2", {"host-work", "attention-backend"}),
        ("h100-timesformer", {"gpu-stall", "attention-backend"}),
        ("mi300x-sd3.5-diffusion", {"launch-bound"}),
        ("sglang-prefill-decode", set()),
        ("vllm-decode-cuda-graph", set()),
    ],
)
def test_real_traces_get_the_advice_their_kernels_support(file, rules):
    assert {rule for rule, _ in findings(TRACES / f"{file}.json.gz")} == rules
