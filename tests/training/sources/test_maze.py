"""The simulator's contract, and play that can be collected twice."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("vizdoom")

from glassworld.engine.actions.track import Action
from glassworld.errors import ActionError
from glassworld.training.data.collect import Collection, collect, load
from glassworld.training.sources.maze import MazeEnvironment
from glassworld.training.sources.maze_textures import repaint

STILL = Action((0.0, 0.0, 0.0, 0.0))
TURN_RIGHT = Action((0.0, 0.0, 0.0, 0.0), (0.0, 0.1))
FORWARD = Action((1.0, 0.0, 0.0, 0.0), (0.0, 0.0))


def test_blocks_follow_the_session_s_convention() -> None:
    simulator = MazeEnvironment(seed=7)
    picture = simulator.reset()
    assert picture.shape == (64, 96, 3)
    assert picture.dtype == np.uint8
    first, second = simulator.step(STILL), simulator.step(TURN_RIGHT)
    assert (first.shape, second.shape) == ((9, 64, 96, 3), (12, 64, 96, 3))
    assert (first == picture).all()  # the reset leaves the player at rest
    assert (second[0] != picture).any()


def test_a_turn_of_a_tenth_is_five_degrees_a_frame_to_the_right() -> None:
    simulator = MazeEnvironment(seed=7)
    simulator.reset()
    before = simulator.pose[2]
    simulator.step(TURN_RIGHT)
    turned = (before - simulator.pose[2]) % 360
    assert turned == pytest.approx(8 * 5, abs=0.2)


def test_the_same_seed_and_actions_give_the_same_frames() -> None:
    def played() -> np.ndarray:
        simulator = MazeEnvironment(seed=3)
        return np.concatenate([simulator.step(FORWARD), simulator.step(TURN_RIGHT)])

    assert (played() == played()).all()


def test_an_action_of_another_mode_is_refused() -> None:
    with pytest.raises(ActionError, match="4"):
        MazeEnvironment().step(Action((1.0, 0.0)))


def test_an_interrupted_collection_goes_on_and_gives_the_same(tmp_path: Path) -> None:
    collection = Collection(tmp_path, seed=5, shards=2, episodes=2, frames=13)
    first, second = collect(collection)
    episodes, before = load(second), second.read_bytes()
    assert episodes.frames.shape == (2, 13, 64, 96, 3)
    assert (episodes.keyboard[:, 0] == episodes.keyboard[:, 1]).all()
    second.write_bytes(before[:1000])
    kept = first.stat().st_mtime_ns
    collect(collection)
    assert second.read_bytes() == before
    assert first.stat().st_mtime_ns == kept


def test_the_level_is_repainted_and_its_vest_gone() -> None:
    vizdoom = pytest.importorskip("vizdoom")
    original = (Path(vizdoom.scenarios_path) / "my_way_home.wad").read_bytes()
    level = repaint(original)
    assert b"BIGBRIK1" in original
    assert b"type = 2018;" in original
    for gone in (b'"BIGBRIK1"', b'"FLAT1_1"', b"type = 2018;"):
        assert gone not in level
    assert level.count(b"PNG\r\n") == 11  # nine walls, a floor, a ceiling
    assert b"PNG\r\n" not in original
