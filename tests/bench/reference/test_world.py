"""The eager baseline makes the same frames as the world it is built from."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest

from glassworld.bench.accuracy import error_against
from glassworld.bench.reference.world import eager_world
from glassworld.engine.acceleration.parts import accelerate
from glassworld.engine.networks import Networks
from glassworld.engine.world import World
from tests.support import tiny


@pytest.mark.parametrize(
    "dit",
    [
        pytest.param({}, marks=pytest.mark.slow),
        pytest.param({"window": 9}, marks=pytest.mark.slow),
        {"window": 7, "sink": 1},
    ],
)
def test_eager_world_makes_the_same_frames(dit: dict[str, int]) -> None:
    world = tiny.world(dit=dit)
    baseline = eager_world(world)
    error = error_against(world, baseline, tiny.picture())  # until frames have left the window
    assert error["latents_in_spreads"] < 1e-6
    assert error["psnr_db"] > 85


def test_accelerating_a_world_leaves_its_eager_baseline_as_it_is() -> None:
    world = tiny.world()
    baseline = eager_world(world)
    theirs, ours = baseline.networks.dit.patch_embedding, world.networks.dit.patch_embedding
    assert theirs.weight is ours.weight
    world = accelerate(world, ["int8"])
    assert error_against(world, baseline, tiny.picture())["latents_in_spreads"] > 1e-4


def test_eager_world_works_without_a_mouse() -> None:
    runner = replace(tiny.DIT.action, keyboard_dim=7, mouse_dim=0)
    world = tiny.world(mode="templerun", dit={"action": runner})
    error = error_against(world, eager_world(world), tiny.picture())
    assert error["latents_in_spreads"] < 1e-6


@pytest.mark.slow
def test_eager_world_runs_in_half_precision() -> None:
    world = tiny.world()
    networks = world.networks
    halves = Networks(
        copy.deepcopy(networks.dit).bfloat16(),
        networks.encoder,
        copy.deepcopy(networks.decoder).half(),
        networks.vision,
    )
    half = World(world.spec, halves, "half")
    error = error_against(half, eager_world(half), tiny.picture())
    assert 0 < error["latents_in_spreads"] < 0.05
    assert error["psnr_db"] > 30
