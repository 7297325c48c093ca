"""How the keys and the mouse of a mode become actions of a Gymnasium environment.

A mapping is a YAML file:

    mode: gta_drive
    idle: [0, 0, 0]          # nothing is pressed
    keys:                    # letters or names of the mode's controls, the mouse's among them
      forward: [0, 1, 0]
      left: [-1, 0, 0]       # half as far if the mouse moves half as far
      forward+left: [-0.5, 1, 0]

or a Python file with `MODE` and a function `to_action(action)` from a `glassworld.Action` to an
action of the environment. `steps_per_frame` and `size` (`STEPS_PER_FRAME` and `SIZE`) are optional.
"""

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from gymnasium import Space, spaces
from numpy.typing import NDArray

from glassworld.engine.actions.track import Action, ActionSpace, Control
from glassworld.engine.checkpoint.config import yaml_problem
from glassworld.engine.variants.registry import action_space
from glassworld.errors import ActionError, InputError, SpecError

PRESSED = 0.5
"""A key counts as pressed from here on, where an environment knows no half-pressed keys."""

SIZE_STEP = 16
"""Height and width of a world are multiples of it."""

MAX_FRAME_PIXELS = 1088 * 1920
"""Most pixels of a world's frame: Full HD, nine times a released world's. A file of four collected
episodes then takes three gigabytes of memory."""

EnvironmentAction = Callable[[Action], Any]
"""Converts the player's input to an action of the environment."""


@dataclass(frozen=True)
class ActionMapping:
    """A mapping for environments of any action space.

    Parameters
    ----------
    mode
        Mode of the keys: `universal`, `gta_drive` or `templerun`.
    to_action
        Converts an `Action` of the mode to an action of the environment. None takes `idle` and
        `keys`.
    idle
        Action of the environment when nothing is pressed: a number, or numbers of its shape.
    keys
        Actions by key, or by keys joined by "+": letters or names of the mode's controls.
    steps_per_frame
        Steps of the environment per content frame. None: as many as make 12 frames a second.
    size
        Height and width of the world, multiples of 16, of at most 1088x1920 pixels in all. None:
        64x96.
    name
        Stands in errors.

    Raises
    ------
    InputError
        The mode is unknown, a key is not the mode's, or a number makes no sense.
    """

    mode: str
    to_action: EnvironmentAction | None = None
    idle: Any = None
    keys: dict[str, Any] = field(default_factory=dict)
    steps_per_frame: int | None = None
    size: tuple[int, int] | None = None
    name: str = "mapping"

    def __post_init__(self) -> None:
        try:
            space = action_space(self.mode)
            written: dict[frozenset[Control], str] = {}
            for keys in self.keys:
                first = written.setdefault(_pressing_controls(space, keys), keys)
                if first != keys:
                    raise ActionError(f"{first!r:.40} and {keys!r:.40} are the same keys; keep one")
        except (ActionError, SpecError) as error:
            raise InputError(f"{self.name}: {error}") from None
        if self.to_action is None and (self.idle is None or not self.keys):
            raise InputError(f"{self.name}: needs 'idle' and 'keys', the environment's actions")
        if self.steps_per_frame is not None and not _is_count(self.steps_per_frame):
            raise InputError(
                f"{self.name}: steps_per_frame is {self.steps_per_frame!r:.40}; "
                "it must be a whole number from 1 up"
            )
        if self.size is not None and not _is_size(self.size):
            raise InputError(
                f"{self.name}: size is {self.size!r:.40}; it must be height and width, "
                f"multiples of {SIZE_STEP}, with at most {MAX_FRAME_PIXELS} pixels in all"
            )

    def bind(self, target: Space) -> EnvironmentAction:
        """Return the conversion to actions of `target`, an environment's action space.

        Raises
        ------
        InputError
            An action of `idle` or `keys` is outside the space; the conversion raises it for what
            `to_action` returns.
        """
        convert = self.to_action or _KeyTable(self, target).to_action

        def checked(action: Action) -> Any:
            try:
                converted = convert(action)
            except Exception as error:
                raise InputError(
                    f"{self.name}: to_action fails for {_one_line(action)}: "
                    f"{type(error).__name__}: {_one_line(error)}; fix it"
                ) from error
            if not target.contains(converted):
                raise InputError(
                    f"{self.name}: {_one_line(action)} becomes {_one_line(converted)}, which is "
                    f"outside the environment's action space {_one_line(target)}; "
                    "change the mapping"
                )
            return converted

        return checked


class _KeyTable:
    """The `idle` and `keys` of a mapping as actions of an environment.

    Entries with more keys come first and use up the strength of their keys; the others get what is
    left. Each entry adds what it changes about `idle`, and the sum is clipped to the action space.
    Where actions are single numbers, only the first pressed entry counts.
    """

    def __init__(self, mapping: ActionMapping, target: Space) -> None:
        self._space = action_space(mapping.mode)
        self._target = target
        self._low, self._high = _bounds(mapping.name, target)
        self._idle = self._element(mapping.name, "idle", mapping.idle)
        self._entries = [
            (_pressing_controls(self._space, keys), self._element(mapping.name, keys, value))
            for keys, value in mapping.keys.items()
        ]
        self._entries.sort(key=lambda entry: -len(entry[0]))

    def _element(self, name: str, keys: str, value: Any) -> NDArray[np.float64]:
        """Return an action of the mapping as numbers, which lie in the action space."""
        try:
            numbers = np.array(value, np.float64)
        except (TypeError, ValueError):
            raise InputError(f"{name}: {keys} is {value!r:.80}, not numbers; write those") from None
        if numbers.shape != self._target.shape or not self._target.contains(self._cast(numbers)):
            raise InputError(
                f"{name}: {keys} is {value!r:.80}, which is outside the environment's action "
                f"space {_one_line(self._target)}; change the mapping"
            )
        return numbers

    def _cast(self, numbers: NDArray[np.float64]) -> Any:
        """Return numbers in the type of the action space; fractions stay where it has none."""
        cast = numbers.astype(self._target.dtype)
        return cast[()] if (cast == numbers).all() or cast.dtype.kind == "f" else numbers

    def to_action(self, action: Action) -> Any:
        """Convert the player's input."""
        left = {
            control: self._space.strength(control, action.keyboard, action.mouse or (0.0, 0.0))
            for control in self._space.controls
        }
        if self._target.dtype.kind != "f":
            left = {control: float(strength >= PRESSED) for control, strength in left.items()}
        total = self._idle.copy()
        for controls, change in self._entries:
            strength = min(left[control] for control in controls)
            total += strength * (change - self._idle)
            left |= {control: left[control] - strength for control in controls}
            if strength and isinstance(self._target, spaces.Discrete):
                break
        return self._cast(np.clip(total, self._low, self._high))


def _pressing_controls(space: ActionSpace, keys: str) -> frozenset[Control]:
    """Return the controls of keys joined by "+"; raise `ActionError` for any that press nothing."""
    space.press(keys)
    controls = frozenset(space.control(key) for key in keys.replace("+", " ").split())
    idle = [control for control in controls if not control.column and not any(control.mouse)]
    if idle or not controls:
        raise ActionError(f"{keys!r:.40} presses nothing; write what it does as 'idle'")
    return controls


def _bounds(name: str, target: Space) -> tuple[Any, Any]:
    """Return the lowest and highest numbers of an action space."""
    if isinstance(target, spaces.Box):
        return target.low, target.high
    if isinstance(target, spaces.Discrete):
        return target.start, target.start + target.n - 1
    if isinstance(target, spaces.MultiDiscrete):
        return target.start, target.start + target.nvec - 1
    if isinstance(target, spaces.MultiBinary):
        return 0, 1
    raise InputError(
        f"{name}: the environment's action space {_one_line(target)} needs a Python mapping, a "
        "file with MODE and to_action(action)"
    )


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 1


def _is_size(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == 2
        and all(_is_count(side) and side % SIZE_STEP == 0 for side in value)
        and value[0] * value[1] <= MAX_FRAME_PIXELS
    )


def _one_line(value: object) -> str:
    return f"{' '.join(str(value).split()):.120}"


@cache
def load_mapping(path: Path) -> ActionMapping:
    """Read a mapping from a .yaml, .yml or .py file, once in a process.

    A Python file is run: it may register the environment too.

    Raises
    ------
    InputError
        The file is missing or unreadable, or the mapping makes no sense.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such mapping; give a .yaml or .py file")
    if path.suffix == ".py":
        return _from_python(path)
    if path.suffix not in (".yaml", ".yml"):
        raise InputError(f"{path}: a mapping is a .yaml or .py file; name one")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, RecursionError, yaml.YAMLError) as error:
        raise InputError(
            f"{path}: not readable as YAML ({yaml_problem(error)}); fix the line it names"
        ) from None
    return _from_settings(path, content)


def _from_settings(path: Path, content: Any) -> ActionMapping:
    if not isinstance(content, dict):
        raise InputError(f"{path}: not a mapping of settings; it needs mode, idle and keys")
    known = [setting.name for setting in fields(ActionMapping)]
    known = [name for name in known if name not in ("to_action", "name")]
    if unknown := sorted(map(str, content.keys() - set(known))):
        raise InputError(f"{path}: no setting {unknown[0]!r:.40}; there are {', '.join(known)}")
    if not isinstance(content.get("mode"), str):
        raise InputError(f"{path}: needs a mode: universal, gta_drive or templerun")
    keys = content.get("keys")
    if not isinstance(keys, dict) or not all(isinstance(name, str) for name in keys):
        raise InputError(f"{path}: keys must be names with actions, such as forward: 2")
    return ActionMapping(**content, name=str(path))


def _from_python(path: Path) -> ActionMapping:
    """Run a Python file and take the mapping from its names."""
    module_name = f"glassworld_mapping_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise InputError(f"{path}: does not run: {type(error).__name__}: {error}") from error
    mode, to_action = getattr(module, "MODE", None), getattr(module, "to_action", None)
    if not isinstance(mode, str) or not callable(to_action):
        raise InputError(f"{path}: needs MODE, a mode's name, and a function to_action(action)")
    return ActionMapping(
        mode,
        to_action,
        steps_per_frame=getattr(module, "STEPS_PER_FRAME", None),
        size=getattr(module, "SIZE", None),
        name=str(path),
    )
