"""Action values, spaces and the benchmark's random actions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from glassworld.engine.actions.track import (
    Action,
    ActionSpace,
    ActionTrack,
    benchmark_actions,
    join_tracks,
)
from glassworld.engine.variants.registry import ACTION_SPACES, action_space
from glassworld.errors import ActionError, SpecError
from tests.support.paths import SHARED

GOLDEN = SHARED / "parity"

# Row 0 and one row of each later segment of 45 pixel frames, computed with the reference.
EXPECTED = {
    ("universal", 42): [
        [1, 0, 0, 1, 0, 0],
        [0, 0, 0, 0, 0, 0.1],
        [1, 0, 1, 0, 0, 0],
        [1, 0, 0, 1, 0, -0.1],
        [0, 0, 1, 0, 0, -0.1],
    ],
    ("gta_drive", 7): [
        [0, 0, 0, -0.1],
        [0, 1, 0, -0.1],
        [0, 0, 0, 0.1],
        [0, 1, 0, 0],
        [1, 0, 0, -0.1],
    ],
    ("templerun", 3): [
        [0, 0, 0, 1, 0, 0, 0],
        [0, 0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 1, 0, 0],
        [0, 0, 0, 1, 0, 0, 0],
        [1, 0, 0, 0, 0, 0, 0],
    ],
}


def _columns(track: ActionTrack) -> np.ndarray:
    if track.mouse is None:
        return track.keyboard
    return np.concatenate([track.keyboard, track.mouse], axis=1)


@pytest.mark.parametrize(("mode", "seed"), EXPECTED)
def test_benchmark_actions_follow_the_reference(mode: str, seed: int) -> None:
    rows = _columns(benchmark_actions(action_space(mode), 45, seed))
    expected = np.array(EXPECTED[mode, seed], np.float32)
    np.testing.assert_array_equal(rows[:1], expected[:1])
    np.testing.assert_array_equal(rows[1:], np.repeat(expected[1:], 12, axis=0)[:44])


@pytest.mark.parametrize(("mode", "seed"), EXPECTED)
def test_benchmark_actions_equal_the_golden_tensors(mode: str, seed: int) -> None:
    path = GOLDEN / mode / "expected.safetensors"
    if not path.exists():
        pytest.skip(f"the golden tensors are not here: {path}")
    from safetensors.numpy import load_file

    golden = load_file(path)
    track = benchmark_actions(action_space(mode), 45, seed)
    np.testing.assert_array_equal(track.keyboard, golden["keyboard"][0])
    if track.mouse is not None:
        np.testing.assert_array_equal(track.mouse, golden["mouse"][0])


def test_a_longer_benchmark_starts_like_a_shorter_one() -> None:
    space = action_space("universal")
    assert benchmark_actions(space, 200, 5).rows(0, 50) == benchmark_actions(space, 50, 5)


@pytest.mark.parametrize(
    ("mode", "keys", "keyboard", "mouse"),
    [
        ("universal", "w", (1, 0, 0, 0), (0, 0)),
        ("universal", "w+left", (1, 0, 1, 0), (0, 0)),
        ("universal", "S d", (0, 1, 0, 1), (0, 0)),
        ("universal", "i+j", (0, 0, 0, 0), (0.1, -0.1)),
        ("universal", "k l", (0, 0, 0, 0), (-0.1, 0.1)),
        ("universal", "q", (0, 0, 0, 0), (0, 0)),
        ("universal", "", (0, 0, 0, 0), (0, 0)),
        ("gta_drive", "w+a", (1, 0), (0, -0.1)),
        ("gta_drive", "back right", (0, 1), (0, 0.1)),
        ("templerun", "w", (0, 1, 0, 0, 0, 0, 0), None),
        ("templerun", "c", (0, 0, 0, 0, 1, 0, 0), None),
        ("templerun", "", (1, 0, 0, 0, 0, 0, 0), None),
    ],
)
def test_press_turns_keys_into_actions(
    mode: str, keys: str, keyboard: tuple[float, ...], mouse: tuple[float, float] | None
) -> None:
    assert action_space(mode).press(keys) == Action(keyboard, mouse)


@pytest.mark.parametrize(
    ("control", "mouse", "strength"),
    [
        ("forward", (0, 0), 0.7),
        ("right", (0, 0.1), 1),
        ("right", (0, 0.05), 0.5),
        ("right", (0, 0.3), 1),
        ("right", (0, -0.1), 0),
        ("idle", (0, 0.1), 0),
    ],
)
def test_strength_tells_how_far_a_control_is_pressed(
    control: str, mouse: tuple[float, float], strength: float
) -> None:
    space = action_space("gta_drive")
    assert space.strength(space.control(control), (0.7, 0), mouse) == pytest.approx(strength)


def test_press_counts_a_repeated_key_once() -> None:
    assert action_space("universal").press(["i", "i"]).mouse == (0.1, 0.0)


@pytest.mark.parametrize(
    ("mode", "keys", "said"),
    [
        ("universal", "w+x", "unknown key 'x'"),
        ("templerun", "w+s", "one action at a time"),
        ("universal", "w+", "'w.': a key is missing"),
        ("templerun", "+jump", "a key is missing"),
        ("universal", "w++left", "a key is missing"),
    ],
)
def test_press_names_wrong_keys(mode: str, keys: str, said: str) -> None:
    with pytest.raises(ActionError, match=said):
        action_space(mode).press(keys)


@pytest.mark.parametrize("given", ["w", None, (1, 0, 0, 0)])
def test_fill_names_a_wrong_type(given: Any) -> None:
    with pytest.raises(ActionError, match=r"not an Action; get one by space\.press\('w'\)$"):
        action_space("universal").fill(given, 12)


def test_action_space_of_an_unknown_mode_lists_the_modes() -> None:
    with pytest.raises(SpecError, match="universal, gta_drive, templerun"):
        action_space("tetris")


@pytest.mark.parametrize(
    ("keyboard", "mouse"),
    [
        ([2.0], None),
        ([float("nan")], None),
        (["up"], None),
        ([1.0], (0.0,)),
        ([1.0], (0.0, 1.5)),
        ([1.0], (0.0, float("inf"))),
    ],
)
def test_action_out_of_range_is_refused(keyboard: list, mouse: tuple | None) -> None:
    with pytest.raises(ActionError):
        Action(keyboard, mouse)  # type: ignore[arg-type]


def test_action_takes_any_sequence_and_keeps_tuples() -> None:
    action = Action(np.array([1, 0]), [0, 0.5])  # type: ignore[arg-type]
    assert action.keyboard == (1.0, 0.0)
    assert action.mouse == (0.0, 0.5)


def test_track_keeps_its_own_read_only_copy() -> None:
    keyboard = np.zeros((3, 4), np.float32)
    track = ActionTrack(keyboard)
    keyboard[:] = 1
    assert track.keyboard.sum() == 0
    with pytest.raises(ValueError, match="read-only"):
        track.keyboard[0, 0] = 1


@pytest.mark.parametrize("value", [np.nan, np.inf, 1.001, -0.001, 1e300])
def test_track_names_the_row_out_of_range(value: float) -> None:
    keyboard = np.zeros((3, 4))
    keyboard[2, 1] = value
    with pytest.raises(ActionError, match="row 2, column 1"):
        ActionTrack(keyboard)  # type: ignore[arg-type]


def test_fitted_with_too_few_rows_names_both_numbers() -> None:
    space = action_space("universal")
    track = space.fill(space.press("w"), 40)
    with pytest.raises(ActionError, match=r"40 rows.* needs 45"):
        track.fitted(space, 45)
    assert len(track.fitted(space, 33)) == 33


def test_fitted_adds_a_resting_mouse_and_refuses_a_surplus_one() -> None:
    keys = ActionTrack(np.zeros((5, 4), np.float32))
    mouse = keys.fitted(action_space("universal"), 5).mouse
    assert mouse is not None
    assert mouse.shape == (5, 2)
    steps = np.zeros((5, 7), np.float32)
    with pytest.raises(ActionError, match="templerun has no mouse"):
        ActionTrack(steps, np.zeros((5, 2), np.float32)).fitted(action_space("templerun"), 5)


def test_fitted_refuses_a_track_of_another_mode() -> None:
    with pytest.raises(ActionError, match="4 keyboard columns, but gta_drive has 2"):
        benchmark_actions(action_space("universal"), 5, 0).fitted(action_space("gta_drive"), 5)


@pytest.mark.parametrize("space", ACTION_SPACES.values(), ids=lambda space: space.mode)
def test_rows_and_join_are_inverse(space: ActionSpace) -> None:
    track = benchmark_actions(space, 30, 1)
    assert join_tracks([track.rows(0, 7), track.rows(7, 30)]) == track
