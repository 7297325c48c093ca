"""A world as a Gymnasium environment, for agents.

    import gymnasium, glassworld.gym
    env = gymnasium.make("glassworld/World-v0")

One step holds one action for a block of frames. A world has no goal: rewards are 0 and episodes
never end. Wrap the environment to add a goal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from glassworld.engine.actions.track import Action
from glassworld.engine.checkpoint.load import load_world
from glassworld.engine.checkpoint.locate import EMBEDDED
from glassworld.engine.media.images import load_start_image
from glassworld.errors import ActionError, InputError, MissingExtraError

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

    `reset(seed=...)` seeds the noise of all later frames. `reset(options={"image": ...})`, a path
    or a PIL image, changes the start image.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 12}  # noqa: RUF012 - as in gymnasium

    def __init__(
        self,
        world: World | None = None,
        image: ImageSource | None = None,
        render_mode: str | None = None,
    ) -> None:
        """Use `world` (default: the embedded world), starting from `image` (default: its first)."""
        self.world = load_world() if world is None else world
        self.render_mode = render_mode
        self.metadata = {**self.metadata, "render_fps": self.world.spec.frame_rate}
        self.action_space = _gym_action_space(self.world)
        shape = (self.world.spec.height, self.world.spec.width, 3)
        self.observation_space = gymnasium.spaces.Box(0, 255, shape, np.uint8)
        self._image = image
        self._session: Session | None = None
        self._frame: Frame = np.zeros(shape, np.uint8)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Frame, dict[str, Any]]:
        """Start a session; return the start image at the world's size, and the info.

        Raises `InputError` if there is no start image.
        """
        super().reset(seed=seed)
        image = (options or {}).get("image", self._image)
        if image is None:
            image = _sample_image()
        spec = self.world.spec
        pixels = load_start_image(image, spec.height, spec.width)
        session_seed = int(self.np_random.integers(2**32))
        self._session = self.world.start(image, session_seed)
        self._frame = np.rint((pixels.transpose(1, 2, 0) * 0.5 + 0.5) * 255).astype(np.uint8)
        return self._frame, {"frames": self._frame[None], "seed": session_seed}

    def step(self, action: Any) -> tuple[Frame, float, bool, bool, dict[str, Any]]:
        """Hold `action` for one block; return the last frame, 0, False, False and the info.

        Raises `ActionError` for an action outside the action space, `InputError` before `reset`.
        """
        if self._session is None:
            raise InputError("step: call reset() first")
        frames = self._session.step(self._to_action(action))
        self._frame = frames[-1]
        return self._frame, 0.0, False, False, {"frames": frames}

    def render(self) -> Frame | None:
        """Return the newest frame in render mode "rgb_array", else None."""
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


def _sample_image() -> ImageSource:
    samples = sorted((EMBEDDED / "pictures").glob("*.png"))
    if not samples:
        raise InputError("image: give a start image; this installation has no samples")
    return samples[0]


gymnasium.register("glassworld/World-v0", entry_point=WorldEnv)
