"""Cold starts report their timeline, or their error."""

from __future__ import annotations

import pytest
import torch

from glassworld.bench.gpu.cold_starts import ColdStart, compare_cold_starts
from glassworld.bench.gpu.context import BenchContext
from glassworld.engine.checkpoint.load import load_world
from tests.support import tiny


def test_a_saved_world_loads_as_the_same_world(context: BenchContext) -> None:
    world = tiny.world(denoising_steps=(1000, 500), dit={"sink": 1})
    world.save(context.folder / "world")
    loaded = load_world(world=context.folder / "world")
    assert loaded.spec == world.spec
    latents, expected = (each.generate(tiny.picture(), 6).latents for each in (loaded, world))
    torch.testing.assert_close(latents, expected, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_cold_starts_report_their_stages_and_errors(context: BenchContext) -> None:
    kinds = {"files": ColdStart(from_files=True), "unknown": ColdStart(("speed",))}
    figures = compare_cold_starts(context, kinds)
    seconds = list(figures["files"]["timeline_s"].values())
    assert seconds == sorted(seconds)
    assert 0 < seconds[0] < seconds[-1] <= figures["files"]["first_frames_s"]
    assert "must be one of" in figures["unknown"]["error"]
