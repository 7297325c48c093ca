"""Gymnasium environments as sources: their frames, their ends, and what is refused at once."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gymnasium")

from glassworld.engine.actions.track import Action
from glassworld.errors import InputError
from glassworld.training.sources.action_mapping import ActionMapping, load_mapping
from glassworld.training.sources.gymnasium_env import GymnasiumSource, open_gymnasium
from tests.support.paths import ROOT
from tests.support.square_env import MAPPING, register

IDLE, RIGHT = Action((0, 0, 0, 0)), Action((0, 0, 0, 1))


@pytest.fixture(autouse=True)
def _registered() -> None:
    register()


def opened(tmp_path: Path, name: str = "Square", mapping: str = MAPPING, **settings: Any):
    path = tmp_path / f"{name}.yaml"
    path.write_text(mapping)
    return open_gymnasium(f"glassworld-tests/{name}-v0@{path}", **settings)


def left_edge(frame: np.ndarray) -> int:
    """Return the first column that shows the square."""
    return int(np.flatnonzero((frame == 255).all(-1).any(0))[0])


def test_step_moves_by_the_keys_and_fits_frames_to_the_world(tmp_path: Path) -> None:
    with opened(tmp_path, mapping=MAPPING + "size: [48, 64]") as source:
        image = source.reset(3)
        assert image.shape == (48, 64, 3)
        assert (source.step(RIGHT) == image).all()  # the first block is the start image
        frames = source.step(RIGHT)
        assert frames.shape == (4, 48, 64, 3)
        # 24 steps a second are two per content frame, each to the right by a pixel.
        edges = [left_edge(image), *map(left_edge, frames)]
        assert np.diff(edges).tolist() == [2, 2, 2, 2]
        still = source.step(IDLE)
        assert (still == frames[-1]).all()


def test_step_crops_the_center_to_the_shape_of_the_world(tmp_path: Path) -> None:
    with opened(tmp_path) as source:  # 48x64 is 3:4, the world is 2:3
        image = source.reset()
        assert image.shape == (64, 96, 3)
        assert image.dtype == np.uint8


def test_reset_with_a_seed_repeats_the_frames(tmp_path: Path) -> None:
    def played(source: GymnasiumSource) -> np.ndarray:
        source.reset(5)
        return np.concatenate([source.step(action) for action in (IDLE, RIGHT, IDLE)])

    with opened(tmp_path) as source, opened(tmp_path, seed=1) as other:
        first = played(source)
        assert (played(source) == first).all()
        assert (played(other) == first).all()
        assert (source.reset(6) != first[0]).any()


def test_new_source_starts_at_the_place_of_its_seed(tmp_path: Path) -> None:
    with opened(tmp_path, seed=5) as source:
        assert (source.step(IDLE)[0] == source.reset(5)).all()


def test_ended_episode_stands_still_and_the_next_step_resets(tmp_path: Path) -> None:
    with opened(tmp_path, "Ending") as source:
        source.reset(0)
        blocks = [source.step(RIGHT)]
        while not source.ended:
            blocks.append(source.step(RIGHT))
        assert len(blocks[-1]) == 4
        assert (source.advance(RIGHT.keyboard) == blocks[-1][-1]).all()
        new = source.step(RIGHT)
        assert not source.ended
        assert len(new) == 1  # a first block
        assert (new[0] != blocks[-1][-1]).any()


def test_time_limit_of_the_environment_is_lifted(tmp_path: Path) -> None:
    with opened(tmp_path) as source:  # registered with a limit of 5 steps
        source.reset()
        for _ in range(10):
            source.step(IDLE)
        assert not source.ended


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("Blind", "glassworld-tests/Blind-v0: renders NoneType instead of an image"),
        ("Text", "renders no images: its render modes are \\['ansi'\\]"),
        (
            "Failing",
            r"Failing-v0: render\(\) fails in square_env.py, line \d+: DependencyNotInstalled: "
            "pygame is not installed; fix it",
        ),
        ("Growing", "its frames change size, from 64x48 to 64x50"),
        (
            "Old",
            r"Old-v0: step\(\) returns ndarray and float and bool and bool; it must return "
            "observation, reward, terminated, truncated and info",
        ),
        ("Nowhere", "glassworld-tests/Nowhere-v0: cannot be created: .*Nowhere"),
    ],
)
def test_environment_that_cannot_be_used_is_refused_in_one_line(
    name: str, problem: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=problem) as refusal:
        opened(tmp_path, name)
    assert "\n" not in str(refusal.value)


def test_environment_that_fails_when_closed_is_closed_without_an_error(tmp_path: Path) -> None:
    with opened(tmp_path, "Unclosable") as source:
        assert source.reset(0).shape == (64, 96, 3)


def test_module_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    (tmp_path / "keys.yaml").write_text(MAPPING)
    with pytest.raises(InputError, match="no_such_module:Env-v0: cannot be created"):
        open_gymnasium(f"no_such_module:Env-v0@{tmp_path / 'keys.yaml'}")


def test_name_without_a_mapping_says_how_to_give_one() -> None:
    with pytest.raises(InputError, match=r"--mapping car_racing\.yaml"):
        open_gymnasium("CarRacing-v3")


def test_action_outside_the_space_is_refused_when_the_source_opens(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"right is \[0, 3\], which is outside"):
        opened(tmp_path, mapping=MAPPING.replace("right: [0, 1]", "right: [0, 3]"))
    far = ActionMapping("universal", lambda action: np.full(2, 9 * action.keyboard[0], np.float32))
    with pytest.raises(InputError, match=r"becomes \[9. 9.\], which is outside"):
        GymnasiumSource("glassworld-tests/Square-v0", far)


def test_python_mapping_registers_its_own_environment(tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text(
        "import gymnasium, numpy as np\n"
        "from tests.support.square_env import SquareEnv\n"
        "gymnasium.register('Own-v0', entry_point=SquareEnv)\n"
        "MODE, STEPS_PER_FRAME = 'gta_drive', 3\n"
        "def to_action(action):\n"
        "    return np.array([0, 10 * action.mouse[1] if action.mouse else 0], np.float32)\n"
    )
    steer = Action((0, 0), (0, 0.1))
    for _ in range(2):  # opened again, the file is not run again
        with open_gymnasium(f"Own-v0@{path}") as source:
            assert source.format.mode == "gta_drive"
            source.reset(2)
            first, *_, last = source.step(steer)[0], *source.step(steer)
            assert left_edge(last) - left_edge(first) == pytest.approx(4 * 3 * 1.5, abs=1)


def test_car_racing_example_fits_its_action_space() -> None:
    mapping = load_mapping(ROOT / "examples" / "car_racing.yaml")
    import gymnasium

    # As CarRacing-v3 defines it: steering, gas, brake.
    space = gymnasium.spaces.Box(np.array([-1, 0, 0], np.float32), np.ones(3, np.float32))
    convert = mapping.bind(space)
    forward = convert(Action((1, 0), (0, 0)))
    assert forward[0] == 0
    assert forward[1] > 0
    assert convert(Action((0, 0), (0, -0.05)))[0] == -convert(Action((0, 0), (0, 0.05)))[0] < 0


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("Box2D") is None, reason="needs gymnasium[box2d]")
def test_car_racing_example_drives() -> None:
    with open_gymnasium(f"CarRacing-v3@{ROOT / 'examples' / 'car_racing.yaml'}") as source:

        def played(*actions: Action) -> np.ndarray:
            source.reset(1)
            return np.concatenate([source.step(action) for action in actions]).astype(float)

        def change(one: np.ndarray, other: np.ndarray) -> float:
            return float(np.abs(one - other).mean())

        go, left, right = Action((1, 0)), Action((1, 0), (0, -0.1)), Action((1, 0), (0, 0.1))
        straight = played(*[go] * 6)
        assert straight.shape == (21, 64, 96, 3)  # the start image and five blocks
        assert (played(*[go] * 6) == straight).all()
        # The view zooms in for a second, whatever is pressed. So gas is compared with none.
        standing = played(*[Action((0, 0))] * 6)
        assert change(straight[-4:], standing[-4:]) > 2
        turned = [played(*[go] * 3, *[action] * 3)[-4:] for action in (left, right)]
        assert change(*turned) > 2
