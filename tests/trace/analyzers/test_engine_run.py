"""The analyzers on a real run of the tiny world, with 3 and with 50 denoising steps."""

import pytest

import glassworld
from glassworld.profiling import registry as tags
from glassworld.trace import analyze
from glassworld.trace.analyzers import breakdown
from glassworld.trace.analyzers.expected_time import (
    expected_table,
    reference_note,
    transformer_costs,
)
from glassworld.trace.analyzers.flops import total_cost
from glassworld.trace.analyzers.run_config import run_config
from tests.support import tiny

FIFTY = tuple(range(1000, 0, -20))


@pytest.fixture(scope="module", params=[(1000, 666, 333), FIFTY], ids=["3 steps", "50 steps"])
def engine_run(request, tmp_path_factory):
    """Run the tiny world and analyze it; return the analysis and the number of steps."""
    path = tmp_path_factory.mktemp("run") / "trace.json"
    world = tiny.world(denoising_steps=request.param)
    with glassworld.profile(path, mode="tags"):
        world.generate(tiny.picture(), num_latent_frames=6)
    return analyze(path), len(request.param)


def test_update_cost_is_one_of_all_passes(engine_run):
    analysis, steps = engine_run
    [update] = breakdown.update_cost(analysis)
    assert update.count == 2
    assert breakdown.instance_count(analysis, tags.DENOISING_STEP) == 2 * steps
    assert breakdown.instance_count(analysis, "DiffusionModel_Forward") == 2 * (steps + 1)


def test_costs_follow_from_the_runs_configuration(engine_run):
    analysis, steps = engine_run
    config = run_config(analysis.trace.metadata)
    assert config is not None
    assert len(config["denoising_steps"]) == steps
    denoise, update = (
        total_cost(parts.values()).flops for parts in transformer_costs(analysis, config)
    )
    # A pass without the head, whose last layer ends at its keys, is somewhat less than a step.
    assert update / (denoise + update) == pytest.approx(1 / (steps + 1), rel=0.45)
    assert update / (denoise + update) < 1 / (steps + 1)
    rows = {row.row.strip(): row for row in expected_table(analysis)}
    assert rows["denoising"].gflop == pytest.approx(denoise / 1e9)
    assert rows["cache update"].gflop == pytest.approx(update / 1e9)
    if steps == 50:
        assert 0.01 < update / (denoise + update) < 0.02


def test_reference_note_with_fifty_steps_is_empty(engine_run):
    analysis, steps = engine_run
    assert bool(reference_note(analysis)) == (steps != 50)


def test_expected_table_rows_are_measured_and_expected(engine_run):
    rows = expected_table(engine_run[0])
    assert all(row.gflop is not None for row in rows)
    unmeasured = [row.row for row in rows if not row.measured_ms]
    assert unmeasured == ["post-processing"]  # it is not the world that draws keys on frames
