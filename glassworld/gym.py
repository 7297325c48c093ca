"""A world as a Gymnasium environment, for agents.

    import gymnasium, glassworld.gym
    env = gymnasium.make("glassworld/World-v0")

    envs = gymnasium.make_vec("glassworld/World-v0", 4, vectorization_mode="async")

One step holds one action for a block of frames. A world has no goal: rewards are 0 unless you give
`reward=`, and episodes never end. Wrap the environment to end them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from glassworld.engine.actions.track import Action
from glassworld.engine.checkpoint.load import load_world
from glassworld.engine.checkpoint.locate import EMBEDDED
from glassworld.engine.media.images import load_start_image
from glassworld.errors import ActionError, InputError, MissingExtraError
from glassworld.specs import TIME_FACTOR, WorldSpec

if TYPE_CHECKING:
    from glassworld.engine.media.images import ImageSource
    from glassworld.engine.session import Session
    from glassworld.engine.world import World

try:
    import gymnasium
except ModuleNotFoundError:
    raise MissingExtraError("gymnasium", "play") from None

Frame = npt.NDArray[np.uint8]


class WorldEnv(gymnasium.Env):  # type: ignore[misc]
    """An environment that runs one session of a world.

    An observation is the newest frame, uint8 [H, W, 3]; `info["frames"]` holds the whole block,
    [n, H, W, 3] (the first block is shorter). Where keys can be combined, an action is a
    dictionary of `keyboard` (MultiBinary, one entry per key) and, in modes with a mouse, `mouse`
    (vertical, horizontal in [-1, 1]; up and right are positive; a camera key moves by 0.1). Where
    keys cannot be combined, an action is the number of the key.

    `reset(seed=...)` seeds the noise of all later frames and, where no image was given, chooses
    one of the embedded start images. `reset(options={"image": ...})`, in any form of
    `ImageSource`, changes the start image.

    `reward(frames, action)` returns the reward of a step from its block of frames. Without it,
    rewards are 0, and `reset`'s info says so under "reward".

    Render mode "rgb_array" renders the last frame of each block, at `render_fps` blocks a second,
    so that `RecordVideo` shows real time. "rgb_array_list" returns every frame since the last
    call, at `render_fps` frames a second.
    """

    metadata = {"render_modes": ["rgb_array", "rgb_array_list"], "render_fps": 12}  # noqa: RUF012 - as in gymnasium

    def __init__(
        self,
        world: World | None = None,
        image: ImageSource | None = None,
        render_mode: str | None = None,
        reward: Callable[[Frame, Any], float] | None = None,
        *,
        picture: ImageSource | None = None,  # the former name of `image`
    ) -> None:
        """Use `world` (default: the embedded world), starting from `image`.

        Without a world, all environments of a process share the weights of the embedded one.
        """
        self.world = _embedded_world() if world is None else world
        self.render_mode = render_mode
        self.metadata = {**self.metadata, "render_fps": _render_fps(self.world.spec, render_mode)}
        self.action_space = _gym_action_space(self.world)
        shape = (self.world.spec.height, self.world.spec.width, 3)
        self.observation_space = gymnasium.spaces.Box(0, 255, shape, np.uint8)
        self._image = picture if image is None else image
        self._reward = reward
        self._unrendered: list[Frame] = []
        self._session: Session | None = None
        self._frame: Frame = np.zeros(shape, np.uint8)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Frame, dict[str, Any]]:
        """Start a session; return the start image at the world's size, and the info.

        Raises `InputError` if there is no start image.
        """
        super().reset(seed=seed)
        session_seed = int(self.np_random.integers(2**32))
        options = options or {}
        image = options.get("image", options.get("picture", self._image))
        if image is None:
            samples = _sample_images()
            image = samples[self.np_random.integers(len(samples))]
        spec = self.world.spec
        pixels = load_start_image(image, spec.height, spec.width)
        self._session = self.world.start(image, session_seed)
        self._frame = np.rint((pixels.transpose(1, 2, 0) * 0.5 + 0.5) * 255).astype(np.uint8)
        self._unrendered = [self._frame]
        info = {"frames": self._frame[None], "seed": session_seed}
        if self._reward is None:
            info["reward"] = "always 0; give reward=, a function of the frames and the action"
        return self._frame, info

    def step(self, action: Any) -> tuple[Frame, float, bool, bool, dict[str, Any]]:
        """Hold `action` for one block; return the last frame, the reward, False, False, the info.

        Raises `ActionError` for an action outside the action space, `InputError` before `reset`.
        """
        if self._session is None:
            raise InputError("step: call reset() first")
        frames = self._session.step(self._to_action(action))
        self._frame = frames[-1]
        if self.render_mode == "rgb_array_list":
            self._unrendered += list(frames)
        reward = 0.0 if self._reward is None else float(self._reward(frames, action))
        return self._frame, reward, False, False, {"frames": frames}

    def render(self) -> Frame | list[Frame] | None:
        """Return the newest frame, or the list of those since the last call; None without mode."""
        if self.render_mode == "rgb_array_list":
            frames, self._unrendered = self._unrendered, []
            return frames
        return self._frame if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Release the session's memory; `reset` starts another session."""
        self._session = None

    def _to_action(self, action: Any) -> Action:
        """Convert an element of the action space; raise `ActionError` for anything else."""
        space = self.world.space
        try:
            if space.idle:
                if not self.action_space.contains(action):
                    raise ValueError
                return Action(tuple(float(key == action) for key in range(len(space.keyboard))))
            keyboard = _numbers(action["keyboard"], len(space.keyboard))
            if not space.has_mouse:
                return Action(keyboard)
            vertical, horizontal = _numbers(action["mouse"], 2)
            return Action(keyboard, (vertical, horizontal))
        except (LookupError, TypeError, ValueError):
            text = " ".join(repr(action).split())  # arrays span several lines
            raise ActionError(f"action: {text:.200} is not in {self.action_space}") from None


def _numbers(values: Any, count: int) -> tuple[float, ...]:
    """Return `count` real numbers as floats; raise `ValueError` for anything else."""
    row = np.asarray(values)
    if row.shape != (count,) or row.dtype.kind not in "biuf":
        raise ValueError
    return tuple(map(float, row))


def _gym_action_space(world: World) -> gymnasium.Space:
    space, spaces = world.space, gymnasium.spaces
    if space.idle:
        return spaces.Discrete(len(space.keyboard))
    parts: dict[str, gymnasium.Space] = {"keyboard": spaces.MultiBinary(len(space.keyboard))}
    if space.has_mouse:
        parts["mouse"] = spaces.Box(-1, 1, (2,), np.float32)
    return spaces.Dict(parts)


@cache
def _embedded_world() -> World:
    """Load the embedded world once in a process."""
    return load_world()


def _render_fps(spec: WorldSpec, render_mode: str | None) -> float:
    """Return how many renderings make a second: of every frame, or of one frame per block."""
    if render_mode != "rgb_array":
        return spec.frame_rate
    return spec.frame_rate / (TIME_FACTOR * spec.frames_per_block)


def _sample_images() -> list[Path]:
    samples = sorted((EMBEDDED / "pictures").glob("*.png"))
    if not samples:
        raise InputError("image: give a start image; this installation has no samples")
    return samples


gymnasium.register("glassworld/World-v0", entry_point=WorldEnv)
