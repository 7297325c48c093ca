"""Actions: the player's input, one row per pixel frame.

An `Action` is one moment's keyboard and mouse, an `ActionTrack` a run of them; an `ActionSpace`
names the keys of a mode. The modes are in `engine.variants`, action files in `files`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from glassworld.errors import ActionError

Rows = npt.NDArray[np.float32]

MOUSE_COLUMNS = ("mouse_vertical", "mouse_horizontal")

SEGMENT_FRAMES = 12
"""The benchmark holds each random action for this many pixel frames: one second."""


@dataclass(frozen=True)
class Action:
    """The player's input at one moment.

    `keyboard`: one number in [0, 1] per key of the mode (0 released, 1 pressed). `mouse`:
    (vertical, horizontal) camera movement in [-1, 1], up and right positive; None where the mode
    has none (and the same as no movement where it has). Raises `ActionError` for anything else.
    """

    keyboard: tuple[float, ...]
    mouse: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        keyboard = _numbers("keyboard", self.keyboard, 0.0, 1.0)
        object.__setattr__(self, "keyboard", keyboard)
        if self.mouse is not None:
            mouse = _numbers("mouse", self.mouse, -1.0, 1.0)
            if len(mouse) != 2:
                raise ActionError(
                    f"mouse: 2 numbers (vertical, horizontal), not {len(mouse)}; give both"
                )
            object.__setattr__(self, "mouse", mouse)


@dataclass(frozen=True)
class ActionTrack:
    """A run of actions, one row per pixel frame.

    `keyboard`: float32 [N, K] in [0, 1]; `mouse`: float32 [N, 2] in [-1, 1] as (vertical,
    horizontal), or None. Both are kept as read-only copies. Raises `ActionError`.
    """

    keyboard: Rows
    mouse: Rows | None = None

    def __post_init__(self) -> None:
        keyboard = _table("keyboard", self.keyboard, 0.0, 1.0)
        object.__setattr__(self, "keyboard", keyboard)
        if self.mouse is None:
            return
        mouse = _table("mouse", self.mouse, -1.0, 1.0)
        if mouse.shape != (len(keyboard), 2):
            raise ActionError(
                f"mouse: shape {list(mouse.shape)}, but {len(keyboard)} rows of 2 are needed, "
                "one per row of the keyboard"
            )
        object.__setattr__(self, "mouse", mouse)

    def __len__(self) -> int:
        return len(self.keyboard)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ActionTrack):
            return NotImplemented
        if self.mouse is None or other.mouse is None:
            same_mouse = self.mouse is other.mouse
        else:
            same_mouse = np.array_equal(self.mouse, other.mouse)
        return same_mouse and np.array_equal(self.keyboard, other.keyboard)

    __hash__ = None  # type: ignore[assignment]

    def rows(self, start: int, stop: int) -> ActionTrack:
        """Return the actions of pixel frames `start` to `stop`, the latter not included."""
        mouse = None if self.mouse is None else self.mouse[start:stop]
        return ActionTrack(self.keyboard[start:stop], mouse)

    def fitted(self, space: ActionSpace, frames: int) -> ActionTrack:
        """Return the first `frames` rows, checked against the mode.

        Where the mode has a mouse and the track none, the mouse rests. Raises `ActionError` for
        too few rows.
        """
        if self.keyboard.shape[1] != len(space.keyboard):
            raise ActionError(
                f"actions: {self.keyboard.shape[1]} keyboard columns, but {space.mode} has "
                f"{len(space.keyboard)}: {', '.join(space.keyboard)}"
                "; give those"
            )
        if self.mouse is not None and not space.has_mouse:
            raise ActionError(f"actions: {space.mode} has no mouse; leave the mouse columns out")
        if len(self) < frames:
            raise ActionError(
                f"actions: {len(self)} rows, but this run needs {frames} (one per pixel frame); "
                "give more actions or ask for fewer frames"
            )
        track = self.rows(0, frames)
        if space.has_mouse and track.mouse is None:
            return ActionTrack(track.keyboard, np.zeros((frames, 2), np.float32))
        return track


@dataclass(frozen=True)
class Control:
    """One key of the player: it sets a keyboard column, moves the mouse, or does neither."""

    name: str
    key: str
    column: str | None = None
    mouse: tuple[float, float] = (0.0, 0.0)


def _split(keys: str) -> list[str]:
    parts = keys.split("+")
    if len(parts) > 1 and not all(part.strip() for part in parts):
        raise ActionError(
            f"action {keys!r:.80}: a key is missing beside a '+'; write keys such as w+left"
        )
    return " ".join(parts).split()


@dataclass(frozen=True)
class ActionSpace:
    """The keys and the mouse of a mode, as data.

    `keyboard` names the keyboard's columns in order; `controls` are the keys to press; `idle`
    names the column set when nothing is pressed ("" for none), which also makes the columns
    exclusive; `benchmark` lists the random benchmark's actions as groups of control names.
    """

    mode: str
    keyboard: tuple[str, ...]
    has_mouse: bool
    controls: tuple[Control, ...]
    benchmark: tuple[tuple[str, ...], ...]
    idle: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column of an action file, keyboard first."""
        return self.keyboard + (MOUSE_COLUMNS if self.has_mouse else ())

    def press(self, keys: str | Iterable[str]) -> Action:
        """Return the action of `keys`: letters or control names, as "w+left", "w left" or a list.

        Nothing pressed is the mode's idle action. Raises `ActionError` for unknown names, for a "+"
        without a key on either side, and for two at once where the mode knows one action at a time.
        """
        names = _split(keys) if isinstance(keys, str) else list(keys)
        chosen = dict.fromkeys(self.control(name) for name in names)
        columns = {control.column for control in chosen if control.column}
        if self.idle:
            if len(columns) > 1:
                raise ActionError(f"{self.mode} takes one action at a time, not {'+'.join(names)}")
            columns = columns or {self.idle}
        keyboard = tuple(float(column in columns) for column in self.keyboard)
        if not self.has_mouse:
            return Action(keyboard)
        vertical = sum(control.mouse[0] for control in chosen)
        horizontal = sum(control.mouse[1] for control in chosen)
        return Action(keyboard, (vertical, horizontal))

    def fill(self, action: Action, frames: int) -> ActionTrack:
        """Repeat `action` for `frames` pixel frames, checked against the mode."""
        if not isinstance(action, Action):
            raise ActionError(f"action {action!r:.80}: not an Action; get one by space.press('w')")
        if len(action.keyboard) != len(self.keyboard):
            raise ActionError(
                f"action: {len(action.keyboard)} keyboard numbers, but {self.mode} has "
                f"{len(self.keyboard)}: {', '.join(self.keyboard)}"
                "; give those"
            )
        keyboard = np.tile(np.array(action.keyboard, np.float32), (frames, 1))
        mouse = None
        if action.mouse is not None:
            mouse = np.tile(np.array(action.mouse, np.float32), (frames, 1))
        return ActionTrack(keyboard, mouse).fitted(self, frames)

    def strength(
        self, control: Control, keyboard: Sequence[float] | Rows, mouse: Sequence[float] | Rows
    ) -> float:
        """Return how far a control is pressed, 0 to 1; the mouse may press it in part."""
        if control.column:
            return float(keyboard[self.keyboard.index(control.column)])
        full = sum(step**2 for step in control.mouse)
        if not full:
            return 0.0
        along = sum(float(moved) * step for moved, step in zip(mouse, control.mouse, strict=True))
        return min(max(along / full, 0.0), 1.0)

    def control(self, name: str) -> Control:
        """Return the control of a letter or a name; raises `ActionError` for an unknown one."""
        wanted = name.lower()
        for control in self.controls:
            if wanted in (control.name, control.key):
                return control
        names = ", ".join(f"{control.key} {control.name}" for control in self.controls)
        raise ActionError(f"unknown key {name!r:.80}; {self.mode} has: {names}; choose one of them")


def join_tracks(tracks: Iterable[ActionTrack]) -> ActionTrack:
    """Join tracks one after another; all must have the same columns."""
    parts = list(tracks)
    mice = [part.mouse for part in parts if part.mouse is not None]
    mouse = np.concatenate(mice) if mice else None
    return ActionTrack(np.concatenate([part.keyboard for part in parts]), mouse)


def benchmark_actions(space: ActionSpace, frames: int, seed: int) -> ActionTrack:
    """Draw the reference's random actions for `frames` pixel frames, in its exact order.

    Frame 0 has a draw of its own, then each draw holds for 12 frames. Every draw is two of
    Python's `random`: one among the segment lengths (there is one: 12), one among the actions.
    """
    if frames < 1:
        raise ActionError(f"{frames} frames of actions; at least 1 is needed")
    source = random.Random(seed)
    tracks: list[ActionTrack] = []
    done = 0
    while done < frames:
        source.randint(0, 0)
        names = space.benchmark[source.randint(0, len(space.benchmark) - 1)]
        length = min(SEGMENT_FRAMES, frames - done) if done else 1
        tracks.append(space.fill(space.press(names), length))
        done += length
    return join_tracks(tracks)


def _numbers(what: str, values: Any, low: float, high: float) -> tuple[float, ...]:
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError, OverflowError):
        raise ActionError(
            f"{what}: {values!r:.80} is not a sequence of numbers; give one"
        ) from None
    for number in numbers:
        if not (math.isfinite(number) and low <= number <= high):
            raise ActionError(
                f"{what}: {number} is out of range; numbers in [{low:g}, {high:g}]"
                "; give such numbers"
            )
    return numbers


def _table(what: str, values: Any, low: float, high: float) -> Rows:
    try:
        table = np.array(values, np.float64)
    except (TypeError, ValueError, OverflowError):
        raise ActionError(
            f"{what}: not a table of numbers with rows of one length; give one"
        ) from None
    if table.ndim != 2 or table.size == 0:
        raise ActionError(
            f"{what}: shape {list(table.shape)} is not one row per pixel frame"
            "; give a table of rows"
        )
    bad = np.argwhere(~((table >= low) & (table <= high)))
    if len(bad):
        row, column = bad[0]
        raise ActionError(
            f"{what}: row {row}, column {column} is {table[row, column]:g}; "
            f"numbers must be in [{low:g}, {high:g}]"
        )
    rows = table.astype(np.float32)
    rows.setflags(write=False)
    return rows
