"""The modes' action spaces, as data: columns, keys for people, the benchmark's actions."""

from __future__ import annotations

from collections.abc import Iterable

from glassworld.engine.actions.track import ActionSpace, Control
from glassworld.errors import SpecError

CAMERA_STEP = 0.1
"""How far one key moves the mouse per pixel frame; the models were trained on it."""


def action_space(mode: str) -> ActionSpace:
    """The action space of a mode; an unknown one is a `SpecError` that lists those there are."""
    if mode not in ACTION_SPACES:
        raise SpecError(f"unknown mode {mode!r}; there are {', '.join(ACTION_SPACES)}")
    return ACTION_SPACES[mode]


def _pairs(movements: Iterable[str], cameras: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    turns = tuple(cameras)
    return tuple((*movement.split(), turn) for movement in movements for turn in turns)


def _camera(up: float, right: float) -> tuple[float, float]:
    return (up * CAMERA_STEP, right * CAMERA_STEP)


_UNIVERSAL = ActionSpace(
    mode="universal",
    keyboard=("forward", "back", "left", "right"),
    has_mouse=True,
    controls=(
        Control("forward", "w", "forward"),
        Control("back", "s", "back"),
        Control("left", "a", "left"),
        Control("right", "d", "right"),
        Control("camera_up", "i", mouse=_camera(1, 0)),
        Control("camera_down", "k", mouse=_camera(-1, 0)),
        Control("camera_left", "j", mouse=_camera(0, -1)),
        Control("camera_right", "l", mouse=_camera(0, 1)),
        Control("idle", "q"),
        Control("camera_idle", "u"),
    ),
    benchmark=(
        (("forward", "left"), ("forward", "right")) * 5
        + (("camera_left",), ("camera_right",)) * 5
        + (("forward",), ("left",), ("right",)) * 5
        + _pairs(
            ("forward", "left", "right", "forward left", "forward right"),
            ("camera_left", "camera_right"),
        )
    ),
)

_GTA_DRIVE = ActionSpace(
    mode="gta_drive",
    keyboard=("forward", "back"),
    has_mouse=True,
    controls=(
        Control("forward", "w", "forward"),
        Control("back", "s", "back"),
        Control("left", "a", mouse=_camera(0, -1)),
        Control("right", "d", mouse=_camera(0, 1)),
        Control("idle", "q"),
    ),
    benchmark=(
        (("left",), ("right",)) * 2
        + (("forward",), ("back",)) * 2
        + _pairs(("forward", "back"), ("left", "right"))
    ),
)

_TEMPLERUN_KEYS = {
    "jump": "w",
    "slide": "s",
    "leftside": "a",
    "rightside": "d",
    "turnleft": "z",
    "turnright": "c",
    "nomove": "q",
}

_TEMPLERUN = ActionSpace(
    mode="templerun",
    keyboard=("nomove", "jump", "slide", "turnleft", "turnright", "leftside", "rightside"),
    has_mouse=False,
    controls=tuple(Control(name, key, name) for name, key in _TEMPLERUN_KEYS.items()),
    benchmark=tuple(
        (name,)
        for name in ("jump", "slide", "leftside", "rightside", "turnleft", "turnright", "nomove")
    ),
    idle="nomove",
)

ACTION_SPACES: dict[str, ActionSpace] = {
    space.mode: space for space in (_UNIVERSAL, _GTA_DRIVE, _TEMPLERUN)
}
