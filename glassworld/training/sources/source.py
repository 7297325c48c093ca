"""What a world is learned from: a simulator that renders frames under actions.

A source subclasses `Source` and gets a name in `registry.py`. Collection, training and evaluation
use nothing else of it. All the rest has defaults: random keys for the policy, mirrored actions for
the mismatched baseline, one pair of actions per key for the evaluation.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from glassworld.engine.actions.track import Action, ActionSpace
from glassworld.engine.variants.registry import action_space
from glassworld.errors import ActionError
from glassworld.specs import TIME_FACTOR

Frame = NDArray[np.uint8]
Keyboard = tuple[float, ...]
Mouse = tuple[float, float]

LATENT_FRAMES_PER_SECOND = 3
"""At 12 content frames per second."""


@dataclass(frozen=True)
class WorldFormat:
    """What the worlds of a source look like to the engine.

    Parameters
    ----------
    mode
        Mode of the actions: `universal`, `gta_drive` or `templerun`.
    height
        Height of a frame in pixels, a multiple of 16.
    width
        Width of a frame in pixels, a multiple of 16.
    frames_per_block
        Latent frames per block. With 1 an input is seen three times as soon as with 3.
    frame_rate
        Content frames per second.
    """

    mode: str
    height: int = 64
    width: int = 96
    frames_per_block: int = 1
    frame_rate: int = 12

    @property
    def space(self) -> ActionSpace:
        """Keys and mouse of the mode."""
        return action_space(self.mode)

    @property
    def idle(self) -> Action:
        """The action without any input."""
        return self.space.press("")

    def pixel_frames(self, first: bool) -> int:
        """Return the number of frames of a block; the first block is three frames shorter."""
        return TIME_FACTOR * self.frames_per_block - (TIME_FACTOR - 1 if first else 0)


class HeldInput(NamedTuple):
    """Keys and mouse movement to hold for `length` latent frames (four content frames each)."""

    length: int
    keyboard: Keyboard
    mouse: Mouse | None = None


class ActionPair(NamedTuple):
    """Two actions that a good model tells apart, each held for a second.

    Attributes
    ----------
    one
        The first action.
    other
        The second action.
    before
        Held for a second before either, so that the pair makes a difference.
    turns
        The first turns the view to the left and the second to the right.
    """

    one: Action
    other: Action
    before: Action
    turns: bool = False


class Source(ABC):
    """A simulator to learn from. The same seed and actions give the same frames.

    A latent frame f stands for the content frames 4f - 3 to 4f, and the model sees actions at that
    resolution. So policies change their input only between latent frames.

    A subclass sets `format` and implements `reset` and `advance`. If it defines `__init__`, it
    takes `seed`.
    """

    format: WorldFormat
    """What its worlds look like."""

    rests = True
    """Whether the view stops changing within two seconds without input."""

    _first_block = True

    @abstractmethod
    def reset(self, seed: int | None = None) -> Frame:
        """Start an episode at a random place; call `start_blocks` in it.

        Parameters
        ----------
        seed
            Starts the sequence of places again, as a new source of this seed would. None continues
            the sequence.

        Returns
        -------
        The start image: uint8 [H, W, 3], RGB.
        """

    @abstractmethod
    def advance(self, keyboard: Keyboard, mouse: Mouse | None = None) -> Frame:
        """Hold an action for one content frame.

        Parameters
        ----------
        keyboard
            One number per key of the mode; call `check_keyboard` for other lengths.
        mouse
            (vertical, horizontal), up and right positive; None for no movement.

        Returns
        -------
        The frame: uint8 [H, W, 3], RGB. It must be a new array.

        Raises
        ------
        ActionError
            The keyboard has another number of keys.
        """

    @property
    def pose(self) -> tuple[float, ...]:
        """Where the view is seen from, of any fixed length, each number with about unit std.

        An auxiliary head of the transformer learns to predict it. Without numbers there is no head.
        """
        return ()

    @property
    def ended(self) -> bool:
        """Whether the episode has ended: the view stands still, and the next `step` resets.

        The data of an episode ends there; see `collect.record_episodes`.
        """
        return False

    @property
    def is_good_start(self) -> bool:
        """Whether the current view makes a good start image for players."""
        return True

    def policy(self, rng: np.random.Generator) -> Iterator[HeldInput]:
        """Yield the inputs of a scripted policy without end, for one episode.

        It is asked for the next input after the last one was held. So it may look at the source.
        """
        space = self.format.space
        while True:
            names = space.benchmark[int(rng.integers(len(space.benchmark)))]
            action = self.format.idle if rng.random() < 0.15 else space.press(names)
            yield HeldInput(int(rng.integers(1, 7)), action.keyboard, action.mouse)

    def evaluation_actions(self, rng: np.random.Generator) -> Iterator[Action]:
        """Yield one action per block without end, for the evaluation; it may look at the source."""
        frames = self.format.frames_per_block
        for held in self.policy(rng):
            for _ in range(max(1, held.length // frames)):
                yield Action(held.keyboard, held.mouse)

    def mismatched(self, action: Action) -> Action:
        """Return an action that should lead elsewhere: neighboring keys swapped, mouse mirrored."""
        order = [min(key ^ 1, len(action.keyboard) - 1) for key in range(len(action.keyboard))]
        keyboard = tuple(action.keyboard[key] for key in order)
        mouse = action.mouse and (-action.mouse[0], -action.mouse[1])
        other = Action(keyboard, mouse)
        return self.format.space.press(self.format.space.keyboard[:1]) if other == action else other

    @property
    def action_pairs(self) -> Mapping[str, ActionPair]:
        """Pairs of actions for the evaluation, by name: here each control beside no input."""
        format = self.format
        actions = {
            control.name: format.space.press(control.name) for control in format.space.controls
        }
        return {
            name: ActionPair(action, format.idle, format.idle)
            for name, action in actions.items()
            if action != format.idle
        }

    def step(self, action: Action) -> Frame:
        """Hold an action for one block.

        Returns
        -------
        uint8 [n, H, W, 3]: for blocks of f latent frames 4f frames. The first block after a reset
        has 4f - 3, of which the first is the start image. So with f = 1 the first block is the
        start image alone, and the action has no effect yet.
        """
        first = self._first_block
        frames = [self.start_image] if first else []
        count = self.format.pixel_frames(first)
        self._first_block = False
        while len(frames) < count:
            frames.append(self.advance(action.keyboard, action.mouse))
        return np.stack(frames)

    @property
    def start_image(self) -> Frame:
        """The view of the last reset; resets if there was none."""
        image: Frame | None = getattr(self, "_start_image", None)
        return self.reset() if image is None else image

    def start_blocks(self, start_image: Frame) -> Frame:
        """Begin the first block of an episode; return the start image."""
        self._start_image, self._first_block = start_image, True
        return start_image

    def check_keyboard(self, keyboard: Keyboard) -> None:
        """Raise `ActionError` unless there is one number per key of the mode."""
        keys = self.format.space.keyboard
        if len(keyboard) != len(keys):
            raise ActionError(
                f"keyboard has {len(keyboard)} keys: this world takes {len(keys)}, "
                f"{', '.join(keys)}"
            )

    def close(self) -> None:  # noqa: B027 - most sources hold nothing
        """Release what the source holds."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
