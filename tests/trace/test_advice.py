"""What was planted in a run is named; a healthy run gets no advice."""

import pytest
from conftest import engine_run, write

from glassworld.trace import analyze
from glassworld.trace.advice import advise


def findings(path):
    return {(finding.rule, finding.tag): finding for finding in advise(analyze(path))}


def test_a_healthy_run_gets_no_advice(run):
    assert findings(run()) == {}


def test_a_stall_is_found_where_it_happened(run):
    path = run(slow=lambda block, layer, **_: 50_000.0 if (block, layer) == (4, -1) else 0.0)
    found = findings(path)
    assert set(found) == {("stall", "2.3_Block_4")}
    assert found["stall", "2.3_Block_4"].gain_ms == pytest.approx(50, rel=0.02)


def test_a_slow_step_is_found(run):
    found = findings(run(slow=lambda step, **_: 400.0 if step == 1 else 0.0))
    assert set(found) == {("slow-step", "Denoising_Step_1_t908")}
    assert found["slow-step", "Denoising_Step_1_t908"].gain_ms == pytest.approx(8 * 1.6, rel=0.05)


def test_a_slow_layer_is_found(run):
    found = findings(run(slow=lambda layer, **_: 900.0 if layer == 2 else 0.0))
    assert set(found) == {("slow-layer", "DiT_Layer_2")}
    assert found["slow-layer", "DiT_Layer_2"].gain_ms == pytest.approx(8 * 4 * 0.9, rel=0.05)


def test_growing_blocks_are_found(run):
    path = run(slow=lambda block, layer, step, **_: 80.0 * block if layer >= 0 and step >= 0 else 0)
    assert {rule for rule, _ in findings(path)} == {"drift"}


def test_a_pause_between_blocks_is_found(tmp_path):
    events = engine_run()
    late = next(event["ts"] for event in events if event["name"] == "2.3_Block_5")
    for event in events:
        if event["ts"] >= late:
            event["ts"] += 60_000
        elif event["name"] == "2_Pipeline_Inference":
            event["dur"] += 60_000
    found = findings(write(tmp_path / "paused.json", events))
    assert set(found) == {("stall", "2.3_Block_5")}
