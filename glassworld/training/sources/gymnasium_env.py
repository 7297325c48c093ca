"""Any Gymnasium environment that renders images, as a source: `gymnasium:ID@MAPPING`."""

import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from PIL import Image

from glassworld.engine.actions.track import Action
from glassworld.engine.media.images import MIN_SIDE, crop_and_resize
from glassworld.errors import InputError
from glassworld.training.sources.action_mapping import ActionMapping, load_mapping
from glassworld.training.sources.source import Frame, Keyboard, Mouse, Source, WorldFormat

RENDER_MODE = "rgb_array"

MAPPING_SEPARATOR = "@"
"""Between the environment's ID and the mapping's path in the name of a source."""


class GymnasiumSource(Source):
    """An environment played by the keys of a mode. It is as deterministic as the environment.

    A content frame is several steps of the environment under one action, as many as come nearest to
    the frame rate of the world. Frames are cropped centrally and resized. The environment's time
    limit is lifted.

    When the environment ends an episode, `ended` is true and the view stands still. The next `step`
    resets.

    Parameters
    ----------
    environment_id
        As `gymnasium.make` takes it: `CarRacing-v3`, or `module:ID` to import a module first.
    mapping
        From the keys and the mouse of a mode to the environment's actions.
    seed
        Determines all resets.

    Raises
    ------
    InputError
        There is no such environment, its code fails, it does not render images of one size, or the
        mapping gives an action outside its action space. Each key is tried for one step.
    """

    rests = False

    def __init__(self, environment_id: str, mapping: ActionMapping, seed: int = 0) -> None:
        self.format = WorldFormat(mapping.mode)
        if mapping.size is not None:
            height, width = mapping.size
            self.format = replace(self.format, height=height, width=width)
        self._name = f"gymnasium:{environment_id}"
        self._environment = _make(environment_id, self._name)
        self._to_action = mapping.bind(self._environment.action_space)
        self._steps = mapping.steps_per_frame or self._steps_per_frame()
        self._rendered_shape: tuple[int, ...] | None = None
        self._rng = np.random.default_rng(seed)
        self._ended = False
        self._try_keys()

    @property
    def ended(self) -> bool:
        """Whether the environment has ended the episode."""
        return self._ended

    def reset(self, seed: int | None = None) -> Frame:
        """Reset the environment; see `Source.reset`."""
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        self._reset_environment(int(self._rng.integers(2**31)))
        self._ended = False
        self._frame = self._render()
        return self.start_blocks(self._frame)

    def step(self, action: Action) -> Frame:
        """Hold an action for one block; reset before it if the episode has ended."""
        if self._ended:
            self.reset()
        return super().step(action)

    def advance(self, keyboard: Keyboard, mouse: Mouse | None = None) -> Frame:
        """Hold an action for one content frame; after the end, repeat the last frame."""
        self.check_keyboard(keyboard)
        if self._ended:
            return self._frame.copy()
        action = self._to_action(Action(keyboard, mouse))
        for _ in range(self._steps):
            self._ended = self._advance_environment(action)
            if self._ended:
                break
        self._frame = self._render()
        return self._frame

    def close(self) -> None:
        """Close the environment; errors of its code are ignored.

        They harm no frame, and must not hide the error that ended the source.
        """
        with suppress(Exception):
            self._environment.close()

    def _advance_environment(self, action: Any) -> bool:
        """Take one step of the environment; return whether it ended the episode."""
        with _named_failure(f"{self._name}: step()"):
            result = self._environment.step(action)
        try:
            _, _, terminated, truncated, _ = result
            return bool(terminated or truncated)
        except (TypeError, ValueError):
            raise InputError(
                f"{self._name}: step() returns {_contents(result)}; it must return observation, "
                "reward, terminated, truncated and info"
            ) from None

    def _reset_environment(self, seed: int) -> None:
        with _named_failure(f"{self._name}: reset()"):
            self._environment.reset(seed=seed)

    def _steps_per_frame(self) -> int:
        """Return how many steps of the environment come nearest to a content frame."""
        frame_rate = self._environment.metadata.get("render_fps") or self.format.frame_rate
        return max(1, round(frame_rate / self.format.frame_rate))

    def _try_keys(self) -> None:
        """Hold each key for one step; convert all that may be held together."""
        space = self.format.space
        for names in space.benchmark:
            self._to_action(space.press(names))
        self._reset_environment(0)
        self._render()
        for control in space.controls:
            if self._advance_environment(self._to_action(space.press(control.name))):
                self._reset_environment(0)
            self._render()

    def _render(self) -> Frame:
        """Return the environment's view at the size of the world."""
        with _named_failure(f"{self._name}: render()"):
            image = self._environment.render()
        if not isinstance(image, np.ndarray):
            raise InputError(
                f"{self._name}: renders {type(image).__name__} instead of an image; its render() "
                f"must return an array [H, W, 3] in render mode {RENDER_MODE!r}"
            )
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise InputError(
                f"{self._name}: renders {image.dtype} {list(image.shape)}; it must be uint8 "
                "[H, W, 3]"
            )
        if self._rendered_shape not in (None, image.shape):
            raise InputError(
                f"{self._name}: its frames change size, from {_size(self._rendered_shape)} to "
                f"{_size(image.shape)}; all must have one size"
            )
        if min(image.shape[:2]) < MIN_SIDE:
            raise InputError(
                f"{self._name}: renders {_size(image.shape)} pixels; each side needs at least "
                f"{MIN_SIDE}"
            )
        self._rendered_shape = image.shape
        fitted = crop_and_resize(Image.fromarray(image), self.format.height, self.format.width)
        return np.array(fitted)


def open_gymnasium(argument: str, seed: int = 0) -> GymnasiumSource:
    """Open a source by the part of its name after `gymnasium:`, an ID and the path of a mapping.

    Raises
    ------
    InputError
        The mapping is missing or makes no sense, or as `GymnasiumSource` does.
    """
    environment_id, _, path = argument.partition(MAPPING_SEPARATOR)
    if not environment_id or not path:
        raise InputError(
            f"gymnasium:{argument}: needs an environment's ID and a mapping of its keys: "
            "gymnasium:CarRacing-v3@car_racing.yaml, or --mapping car_racing.yaml"
        )
    mapping = load_mapping(Path(path))  # before the environment, which a Python file may register
    return GymnasiumSource(environment_id, mapping, seed)


def _make(environment_id: str, name: str) -> gymnasium.Env:
    """Create an environment that renders images, without a time limit.

    Gymnasium's own warnings are silenced: what they warn of is an error here, or no concern.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            environment = gymnasium.make(
                environment_id,
                max_episode_steps=-1,
                disable_env_checker=True,
                render_mode=RENDER_MODE,
            )
    except Exception as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{name}: cannot be created: {reason.rstrip('.'):.300}; check its ID and needs; "
            "one of your own needs a Python mapping that registers it, or the ID MODULE:ID"
        ) from error
    modes = environment.metadata.get("render_modes", [])
    if RENDER_MODE not in modes:
        environment.close()
        raise InputError(
            f"{name}: renders no images: its render modes are {list(modes)}, and "
            f"{RENDER_MODE!r} is needed"
        )
    return environment


@contextmanager
def _named_failure(call: str) -> Iterator[None]:
    """Raise `InputError` for any error of the environment's code, naming its file and line."""
    try:
        yield
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        reason = " ".join(str(error).split())
        raise InputError(
            f"{call} fails in {Path(place.filename).name}, line {place.lineno}: "
            f"{type(error).__name__}: {reason:.300}; fix it, or install what it needs"
        ) from error


def _contents(result: Any) -> str:
    """Return the types of what a function returned."""
    values = result if isinstance(result, tuple) else (result,)
    return " and ".join(type(value).__name__ for value in values)


def _size(shape: tuple[int, ...] | None) -> str:
    return "" if shape is None else f"{shape[1]}x{shape[0]}"
