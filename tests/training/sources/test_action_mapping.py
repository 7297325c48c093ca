"""Mappings: how keys add up, for every kind of action space, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gymnasium")

from gymnasium import spaces

from glassworld.engine.variants.registry import action_space
from glassworld.errors import InputError
from glassworld.training.sources.action_mapping import ActionMapping, load_mapping

DRIVE = action_space("gta_drive")
PEDALS = spaces.Box(np.array([-1, 0], np.float32), np.ones(2, np.float32))
"""Steering and gas."""


def converted(mapping: ActionMapping, space: spaces.Space, keys: str) -> Any:
    action = mapping.bind(space)(action_space(mapping.mode).press(keys))
    assert space.contains(action)
    return np.asarray(action).tolist()


@pytest.mark.parametrize(
    ("keys", "expected"),
    [("", [0, 0.2]), ("w", [0, 1]), ("left", [-1, 0.2]), ("w d", [1, 1]), ("a d", [0, 0.2])],
)
def test_bind_adds_up_what_keys_change_about_idle(keys: str, expected: list[float]) -> None:
    table = {"forward": [0, 1], "left": [-1, 0.2], "d": [1, 0.2]}
    mapping = ActionMapping("gta_drive", idle=[0, 0.2], keys=table)
    assert converted(mapping, PEDALS, keys) == pytest.approx(expected)


def test_bind_clips_sums_and_takes_half_a_mouse_movement_by_half() -> None:
    table = {"forward": [0.5, 0.5], "right": [1, 0]}
    mapping = ActionMapping("gta_drive", idle=[0, 0], keys=table)
    assert converted(mapping, PEDALS, "w d") == [1, 0.5]
    half = DRIVE.press("d")
    action = mapping.bind(PEDALS)(type(half)(half.keyboard, (0, 0.05)))
    assert action.tolist() == pytest.approx([0.5, 0])


def test_bind_prefers_entries_with_more_keys() -> None:
    table = {"w": [0, 1], "a": [-1, 0], "w+a": [-0.5, 0.5]}
    mapping = ActionMapping("gta_drive", idle=[0, 0], keys=table)
    assert converted(mapping, PEDALS, "w a") == [-0.5, 0.5]
    assert converted(mapping, PEDALS, "a") == [-1, 0]


@pytest.mark.parametrize(
    ("keys", "expected"), [("", 0), ("w", 1), ("w a", 4), ("s w", 1), ("d", 0)]
)
def test_bind_gives_one_number_where_the_space_is_discrete(keys: str, expected: int) -> None:
    mapping = ActionMapping("gta_drive", idle=0, keys={"w": 1, "s": 2, "a": 3, "w+a": 4})
    assert converted(mapping, spaces.Discrete(5), keys) == expected


def test_bind_sets_buttons_of_binary_and_multi_discrete_spaces() -> None:
    table = {"w": [1, 0], "a": [0, 1]}
    mapping = ActionMapping("gta_drive", idle=[0, 0], keys=table)
    assert converted(mapping, spaces.MultiBinary(2), "w a") == [1, 1]
    assert converted(mapping, spaces.MultiDiscrete([2, 3]), "a") == [0, 1]


@pytest.mark.parametrize(
    ("space", "value"),
    [
        (spaces.Discrete(3), 3),
        (spaces.Discrete(3), 0.5),
        (spaces.Discrete(3), [1]),
        (spaces.MultiBinary(2), [2, 0]),
        (PEDALS, [0, -1]),
        (PEDALS, [0]),
        (PEDALS, float("nan")),
        (PEDALS, "full"),
    ],
)
def test_bind_refuses_actions_outside_the_space(space: spaces.Space, value: Any) -> None:
    idle: Any = 0 if isinstance(space, spaces.Discrete) else [0, 0]
    mapping = ActionMapping("gta_drive", idle=idle, keys={"w": value}, name="keys.yaml")
    with pytest.raises(InputError, match=r"keys\.yaml: w is "):
        mapping.bind(space)


def test_bind_names_python_where_a_table_cannot_express_an_action() -> None:
    mapping = ActionMapping("gta_drive", idle=0, keys={"w": 1})
    with pytest.raises(InputError, match="needs a Python mapping"):
        mapping.bind(spaces.Dict({"gas": spaces.Discrete(2)}))


def test_bind_names_the_action_that_a_function_fails_for() -> None:
    broken = ActionMapping("gta_drive", lambda action: action.keyboard[7], name="keys.py")
    with pytest.raises(InputError, match=r"keys\.py: to_action fails for .*IndexError"):
        broken.bind(spaces.Discrete(3))(DRIVE.press("w"))


TABLE = "mode: gta_drive\nidle: 0\nkeys: {w: 1}\n"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (TABLE.replace("1}", "1"), r"not readable as YAML \(expected ',' or '}'.*, line \d\)"),
        ("- w", "not a mapping of settings"),
        (TABLE + "key: {}", "no setting 'key'; there are mode, idle, keys"),
        (TABLE.replace("gta_drive", "flying"), "unknown mode 'flying'"),
        (TABLE.replace("mode: gta_drive", ""), "needs a mode"),
        (TABLE.replace("w:", "jump:"), "unknown key 'jump'; gta_drive has: w forward"),
        (TABLE.replace("w:", "q:"), "'q' presses nothing"),
        (TABLE.replace("1}", "1, forward: 1}"), "'w' and 'forward' are the same keys; keep one"),
        (TABLE.replace("{w: 1}", "{}"), "needs 'idle' and 'keys'"),
        (TABLE.replace("{w: 1}", "[w]"), "keys must be names"),
        (TABLE + "steps_per_frame: 0", "steps_per_frame is 0"),
        (TABLE + "size: [60, 90]", "size is \\[60, 90\\]; it must be height and width, multiples"),
        (TABLE + "size: [1600000, 16]", "size is .*, with at most 2088960 pixels in all"),
    ],
)
def test_load_mapping_refuses_files_in_one_line(content: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match=problem) as refusal:
        load_mapping(path)
    assert str(refusal.value).startswith(f"{path}: ")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("MODE = 'gta_drive'", "needs MODE"),
        ("import no_such_module", "does not run: ModuleNot"),
        ("import sys\nsys.exit(0)", "does not run: SystemExit: 0"),
    ],
)
def test_load_mapping_refuses_python_files(content: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "keys.py"
    path.write_text(content)
    with pytest.raises(InputError, match=problem):
        load_mapping(path)


def test_load_mapping_refuses_missing_and_other_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"keys.yaml: no such mapping"):
        load_mapping(tmp_path / "keys.yaml")
    (tmp_path / "keys.txt").touch()
    with pytest.raises(InputError, match=r"a mapping is a .yaml or .py file"):
        load_mapping(tmp_path / "keys.txt")
