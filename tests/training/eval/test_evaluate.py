"""Evaluation: a world that is the simulator scores perfectly, one that does the opposite fails."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("vizdoom")

from glassworld.engine.actions.track import Action
from glassworld.engine.checkpoint.load import load_world
from glassworld.engine.checkpoint.tiny_decoder import with_tiny_decoder
from glassworld.errors import InputError
from glassworld.training.eval.drift import DRIFT_SEED_OFFSET, measure_drift
from glassworld.training.eval.evaluate import (
    ACTION_SEED_OFFSET,
    check_comparable,
    score_actions,
    score_blocks,
    score_vae,
)
from glassworld.training.eval.sessions import EvalConfig, blocks_in
from glassworld.training.sources.maze import OPPOSITE, STILL, VizdoomMaze
from glassworld.training.sources.source import Frame
from tests.support import tiny

if TYPE_CHECKING:
    from glassworld.engine.world import World

CONFIG = EvalConfig(starts=2, seconds=2, drift_starts=1, drift_seconds=6)


@dataclass
class SimulatorSession:
    simulator: VizdoomMaze
    opposite: bool

    def step(self, action: Action) -> Frame:
        return self.simulator.step(OPPOSITE[action] if self.opposite else action)


class SimulatorWorld:
    """A world that continues known start images in the simulator, or does the opposite."""

    def __init__(self, simulator: VizdoomMaze, seeds: dict[bytes, int], opposite: bool) -> None:
        self.simulator, self.seeds, self.opposite = simulator, seeds, opposite

    def start(self, start_image: Image.Image) -> SimulatorSession:
        self.simulator.reset(self.seeds[np.asarray(start_image).tobytes()])
        return SimulatorSession(self.simulator, self.opposite)


@pytest.fixture(scope="module")
def simulator() -> Iterator[VizdoomMaze]:
    with VizdoomMaze() as simulator:
        yield simulator


@pytest.fixture(scope="module")
def worlds(simulator: VizdoomMaze) -> tuple[World, World]:
    """Return the simulator as a world, and the world that does the opposite."""
    seeds = {}
    for offset in (0, ACTION_SEED_OFFSET, DRIFT_SEED_OFFSET):
        for seed in range(CONFIG.seed + offset, CONFIG.seed + offset + CONFIG.starts):
            seeds[simulator.reset(seed).tobytes()] = seed
    same, opposite = (SimulatorWorld(simulator, seeds, opposite) for opposite in (False, True))
    return cast("World", same), cast("World", opposite)


def test_score_vae_decodes_by_the_decoder_of_the_world_in_its_own_type() -> None:
    image = np.asarray(tiny.picture(32, 48))
    clips = np.stack([np.roll(image, 2 * frame, 1) for frame in range(9)])[None]
    world = tiny.world()
    exact = score_vae(world, clips)["psnr"]
    other = score_vae(with_tiny_decoder(world, None), clips)["psnr"]
    world.networks.decoder.bfloat16()
    assert score_vae(world, clips)["psnr"] == pytest.approx(exact, abs=0.1)
    assert other != pytest.approx(exact, abs=0.1)


def test_check_comparable_refuses_other_frame_sizes_modes_and_blocks(
    simulator: VizdoomMaze,
) -> None:
    spec = load_world("maze", device="cpu").spec
    check_comparable(spec, simulator)
    with pytest.raises(InputError, match="96x64 pixels; this world has 640x352"):
        check_comparable(replace(spec, height=352, width=640), simulator)
    with pytest.raises(InputError, match="mode universal; this world has mode gta_drive"):
        check_comparable(replace(spec, mode="gta_drive"), simulator)
    with pytest.raises(InputError, match="3 latent frames; this world has 2 in a block"):
        check_comparable(replace(spec, frames_per_block=2), simulator)


def test_score_blocks_of_the_simulator_is_perfect(
    simulator: VizdoomMaze, worlds: tuple[World, World]
) -> None:
    scores = score_blocks(worlds[0], simulator, CONFIG)
    assert scores["psnr"] == [60, 60]
    assert scores["ssim"] == pytest.approx([1, 1], abs=1e-3)
    assert max(scores["psnr_start_picture"]) < 60
    assert max(scores["psnr_wrong_actions"]) < 60
    opposite = score_blocks(worlds[1], simulator, CONFIG)
    assert opposite["psnr"] == scores["psnr_wrong_actions"]


def test_score_blocks_averages_moving_views_separately(
    simulator: VizdoomMaze, worlds: tuple[World, World]
) -> None:
    scores = score_blocks(worlds[0], simulator, replace(CONFIG, starts=1))
    for all_views, moving in zip(
        scores["psnr_start_picture"], scores["psnr_start_picture_moving"], strict=True
    ):
        assert moving == (all_views if all_views < 35 else None)


def test_score_actions_tells_right_from_opposite(
    simulator: VizdoomMaze, worlds: tuple[World, World]
) -> None:
    config = replace(CONFIG, starts=1)
    scores = score_actions(worlds[0], simulator, config)
    assert {scores[name] for name in ("turn", "forward_back", "strafe", "turn_sign")} == {1.0}
    assert scores["turn_size"] == pytest.approx(1)
    assert set(scores["intervals_95"]) == set(scores) - {"intervals_95"}
    assert scores["intervals_95"]["turn_size"] == [1, 1]
    assert scores["intervals_95"]["turn_sign"] == [0.342, 1]  # two of two
    assert score_actions(worlds[1], simulator, config)["turn_sign"] == 0


def test_measure_drift_of_the_simulator_is_zero(
    simulator: VizdoomMaze, worlds: tuple[World, World]
) -> None:
    simulator.reset(CONFIG.seed + DRIFT_SEED_OFFSET)
    still = [simulator.step(STILL) for _ in range(blocks_in(simulator, CONFIG.drift_seconds))]
    scores = measure_drift(worlds[0], simulator, CONFIG, np.concatenate(still))
    for row in scores.values():
        for end in ("first", "last"):
            for name in ("sharpness", "motion"):
                expected = row[f"true_{end}_{name}"]
                assert row[f"{end}_{name}"] == pytest.approx(expected, rel=0.01)
        assert row["sharp"] == 1
        assert row["last_motion_95"] is None  # of a single session
    standing = scores["standing"]
    assert max(standing[f"{end}_distance"] or 0 for end in ("first", "last")) < 0.1
    assert standing["first_sharpness"] == pytest.approx(standing["real_sharpness"], rel=0.01)
