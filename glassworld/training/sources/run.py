"""The runner: corridors with hurdles, beams, crates and turns, for the seven keys of `templerun`.

The runner runs by itself. `jump` clears hurdles, `slide` passes beams, `leftside` and `rightside`
change between three lanes, `turnleft` and `turnright` turn at a junction, and `nomove` runs on.
Every key shows at once, everywhere: away from a junction a turn key swings the view to the side and
back. Nothing ends the run. An obstacle that one hits falls over and costs a third of a second; at
the wall of a missed junction the runner waits and then turns by itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from glassworld.engine.actions.track import Action
from glassworld.training.sources.runner.camera import HEIGHT, WIDTH
from glassworld.training.sources.runner.course import (
    KEYS,
    MOVE_FRAMES,
    Key,
    Move,
    Posture,
    RunState,
    move,
    start_state,
)
from glassworld.training.sources.runner.motion import JUMP_HEIGHT, first_view, view_of
from glassworld.training.sources.runner.policies import POLICIES
from glassworld.training.sources.runner.renderer import render
from glassworld.training.sources.source import (
    ActionPair,
    Frame,
    HeldInput,
    Keyboard,
    Mouse,
    Source,
    WorldFormat,
)

_OPPOSITE: dict[Key, Key] = {
    "nomove": "jump",
    "jump": "slide",
    "slide": "jump",
    "turnleft": "turnright",
    "turnright": "turnleft",
    "leftside": "rightside",
    "rightside": "leftside",
}
_SAME_FRAMES = 0.5
"""Two effects whose frames differ less than this (RMS, of 255) look the same."""


class Outcome(NamedTuple):
    """What a key does in a state.

    Attributes
    ----------
    move
        What changes, and the state after it.
    frames
        The four frames that show it: uint8 [4, 64, 96, 3].
    """

    move: Move
    frames: Frame


def key_outcomes(state: RunState) -> dict[Key, Outcome]:
    """Return what each of the seven keys does in a state: what changes, and how that looks."""
    moves = {key: move(state, key) for key in KEYS}
    return {key: Outcome(done, move_frames(done)) for key, done in moves.items()}


def move_frames(done: Move) -> Frame:
    """Draw the frames of a move: uint8 [4, 64, 96, 3]."""
    return np.stack([render(view_of(done, frame)) for frame in range(1, MOVE_FRAMES + 1)])


def shows_key(frames: Frame, key: Key, outcomes: Mapping[Key, Outcome]) -> bool:
    """Tell whether a world's answer to a key shows what the key does.

    Parameters
    ----------
    frames
        The world's frames: uint8 [4, 64, 96, 3].
    key
        The key that was held.
    outcomes
        What each key does in the state before (`key_outcomes`).

    Returns
    -------
    Whether no other outcome is nearer to the frames than the key's own. Keys whose outcomes look
    the same, such as `jump` and `nomove` in the air, count as one.
    """
    errors = {other: _rms(frames, outcome.frames) for other, outcome in outcomes.items()}
    nearest = min(errors, key=lambda other: errors[other])
    return _rms(outcomes[nearest].frames, outcomes[key].frames) < _SAME_FRAMES


def _rms(one: Frame, other: Frame) -> float:
    return float(np.sqrt(np.mean((one.astype(np.float32) - other) ** 2)))


class RunSource(Source):
    """A runner on an endless course. The same seed and keys give the same frames.

    A key is read once in four frames, when a move begins, and holds for that move. Of several keys
    the strongest counts; none is `nomove`. There is no mouse.

    Parameters
    ----------
    seed
        Determines the course and the start of every reset.
    """

    format = WorldFormat("templerun", HEIGHT, WIDTH)
    rests = False

    def __init__(self, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)
        self._state = start_state(seed)
        self._view = first_view(self._state)
        self._move: Move | None = None
        self._frame = 0

    def reset(self, seed: int | None = None) -> Frame:
        """Start somewhere in the first corridor of a new course (see `Source.reset`)."""
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        return self.resume(start_state(int(self._rng.integers(2**31))))

    def resume(self, state: RunState) -> Frame:
        """Start an episode in a state, upright and past any turn; return the start image."""
        self._state = replace(state, posture=Posture.UPRIGHT, turn=None)
        self._view, self._move, self._frame = first_view(self._state), None, 0
        return self.start_blocks(render(self._view))

    def advance(self, keyboard: Keyboard, mouse: Mouse | None = None) -> Frame:
        """Hold a key for one content frame (see `Source.advance`)."""
        self.check_keyboard(keyboard)
        if self._move is None or self._frame == MOVE_FRAMES:
            self._move = move(self._state, KEYS[int(np.argmax(keyboard))])
            self._state, self._frame = self._move.after, 0
        self._frame += 1
        self._view = view_of(self._move, self._frame)
        return render(self._view)

    @property
    def state(self) -> RunState:
        """The state in which the current move ends."""
        return self._state

    @property
    def pose(self) -> tuple[float, ...]:
        """Lane, height, crouching, direction (cosine and sine) and cells to the next junction."""
        view = self._view
        azimuth = view.state.heading * math.pi / 2 + view.yaw
        cells = self._state.corridor.last_cell - self._state.cell
        return (
            view.lane,
            2 * view.height / JUMP_HEIGHT,
            2 * view.crouch,
            math.cos(azimuth),
            math.sin(azimuth),
            (cells - 5) / 4,
        )

    @property
    def is_good_start(self) -> bool:
        """Whether there is some way to go, and no beam before the camera hides the runner."""
        rows = self.state.corridor.rows
        just_passed = any(row.cell == self.state.cell - 1 for row in rows)
        return self.state.cell + 5 < self.state.corridor.length and not just_passed

    def policy(self, rng: np.random.Generator) -> Iterator[HeldInput]:
        """Yield the inputs of one of the `POLICIES`, chosen by its share."""
        shares = [share for _, share in POLICIES.values()]
        policy = POLICIES[str(rng.choice(list(POLICIES), p=shares))][0](rng)
        key = next(policy)
        while True:
            yield HeldInput(1, _press(key).keyboard)
            key = policy.send(self.state)

    def mismatched(self, action: Action) -> Action:
        """Return the opposite key; running on becomes a jump."""
        return _press(_OPPOSITE[KEYS[int(np.argmax(action.keyboard))]])

    @property
    def action_pairs(self) -> Mapping[str, ActionPair]:
        """Each key beside running on, and the keys of opposite sides."""
        idle = self.format.idle
        pairs: dict[str, ActionPair] = {
            key: ActionPair(_press(key), idle, idle) for key in KEYS[1:]
        }
        pairs["turn"] = ActionPair(_press("turnleft"), _press("turnright"), idle)
        pairs["side"] = ActionPair(_press("leftside"), _press("rightside"), idle)
        return pairs


def _press(key: Key) -> Action:
    return Action(tuple(float(key == other) for other in KEYS))
