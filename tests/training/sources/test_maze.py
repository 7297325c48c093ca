"""The simulator: its contract with sessions, its determinism, and what it leaves on disk."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("vizdoom")

from glassworld.engine.actions.track import Action
from glassworld.errors import ActionError
from glassworld.training.sources.maze import VizdoomMaze
from glassworld.training.sources.maze_textures import repaint

STILL = Action((0.0, 0.0, 0.0, 0.0))
TURN_RIGHT = Action((0.0, 0.0, 0.0, 0.0), (0.0, 0.1))
FORWARD = Action((1.0, 0.0, 0.0, 0.0), (0.0, 0.0))


@pytest.fixture(scope="module")
def simulator() -> Iterator[VizdoomMaze]:
    with VizdoomMaze(seed=7) as simulator:
        yield simulator


def test_blocks_have_the_lengths_of_a_session(simulator: VizdoomMaze) -> None:
    start_image = simulator.reset(7)
    assert start_image.shape == (64, 96, 3)
    assert start_image.dtype == np.uint8
    first, second, third = (simulator.step(action) for action in (STILL, STILL, TURN_RIGHT))
    assert (first.shape, second.shape) == ((1, 64, 96, 3), (4, 64, 96, 3))
    assert (first == start_image).all()
    assert (second == start_image).all()  # the reset leaves the player at rest
    assert (third[0] != start_image).any()


def test_mouse_of_a_tenth_turns_five_degrees_per_frame_to_the_right(
    simulator: VizdoomMaze,
) -> None:
    simulator.reset(7)
    simulator.step(STILL)
    before = simulator.location[2]
    simulator.step(TURN_RIGHT)
    turned = (before - simulator.location[2]) % 360
    assert turned == pytest.approx(4 * 5, abs=0.2)


def test_reset_with_a_seed_gives_the_frames_of_a_new_environment(
    simulator: VizdoomMaze,
) -> None:
    def frames(environment: VizdoomMaze) -> np.ndarray:
        actions = (STILL, FORWARD, TURN_RIGHT)
        return np.concatenate([environment.step(action) for action in actions])

    simulator.reset(1)
    simulator.step(FORWARD)
    simulator.reset(3)
    with VizdoomMaze(seed=3) as new:
        assert (frames(simulator) == frames(new)).all()


def test_step_refuses_an_action_of_another_mode(simulator: VizdoomMaze) -> None:
    with pytest.raises(ActionError, match="4"):
        simulator.step(Action((1.0, 0.0)))


def test_environment_leaves_nothing_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with VizdoomMaze() as simulator:
        simulator.step(FORWARD)
        assert not list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())
    assert Path(os.getcwd()) == tmp_path


def test_repaint_replaces_textures_and_removes_the_vest() -> None:
    vizdoom = pytest.importorskip("vizdoom")
    original = (Path(vizdoom.scenarios_path) / "my_way_home.wad").read_bytes()
    level = repaint(original)
    assert b"BIGBRIK1" in original
    assert b"type = 2018;" in original
    for removed in (b'"BIGBRIK1"', b'"FLAT1_1"', b"type = 2018;"):
        assert removed not in level
    assert level.count(b"PNG\r\n") == 11  # nine walls, a floor, a ceiling
    assert b"PNG\r\n" not in original
