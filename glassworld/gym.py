"""A world as a Gymnasium environment, so that agents walk in it too.

    import gymnasium, glassworld.gym
    env = gymnasium.make("glassworld/World-v0")

Each step holds one action for a block of frames. A world knows no goals: rewards are 0 and
episodes have no end of their own; wrap the environment to say what counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from glassworld.engine.actions.track import Action
from glassworld.engine.checkpoint.load import load_world
from glassworld.engine.checkpoint.locate import EMBEDDED
from glassworld.engine.media.images import load_picture
from glassworld.errors import ActionError, InputError, MissingExtraError

if TYPE_CHECKING:
    from glassworld.engine.world import Picture, Session, World

try:
    import gymnasium
except ModuleNotFoundError:
    raise MissingExtraError("gymnasium", "play") from None

Frame = npt.NDArray[np.uint8]


class WorldEnv(gymnasium.Env):  # type: ignore[misc]
    """One session of a world.

    Observations are the newest frame, uint8 [H, W, 3]; `info["frames"]` has all of the block,
    [n, H, W, 3] (fewer in the first). Actions by mode: where keys can be combined a dictionary
    of `keyboard` (MultiBinary, one per key) and, with a mouse, `mouse` (vertical, horizontal in
    [-1, 1], up and right positive; a camera key is 0.1); where they cannot, the key's number.

    `reset(seed=...)` fixes the noise of all that follows; `options={"picture": ...}` (a path or
    a PIL image) changes the starting picture. Raises `InputError` where one is needed.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 12}  # noqa: RUF012 - gymnasium's way

    def __init__(
        self,
        world: World | None = None,
        picture: Picture | None = None,
        render_mode: str | None = None,
    ) -> None:
        """`world`: the embedded one by default; `picture`: its first sample."""
        self.world = load_world() if world is None else world
        self.render_mode = render_mode
        self.metadata = {**self.metadata, "render_fps": self.world.spec.frame_rate}
        self.action_space = _actions(self.world)
        shape = (self.world.spec.height, self.world.spec.width, 3)
        self.observation_space = gymnasium.spaces.Box(0, 255, shape, np.uint8)
        self._picture = picture
        self._session: Session | None = None
        self._frame: Frame = np.zeros(shape, np.uint8)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Frame, dict[str, Any]]:
        """Start at the picture; the observation is the picture at the world's size."""
        super().reset(seed=seed)
        picture = (options or {}).get("picture", self._picture)
        if picture is None:
            picture = _sample()
        spec = self.world.spec
        pixels = load_picture(picture, spec.height, spec.width)
        noise = int(self.np_random.integers(2**32))
        self._session = self.world.start(picture, noise)
        self._frame = np.rint((pixels.transpose(1, 2, 0) * 0.5 + 0.5) * 255).astype(np.uint8)
        return self._frame, {"frames": self._frame[None], "seed": noise}

    def step(self, action: Any) -> tuple[Frame, float, bool, bool, dict[str, Any]]:
        """Hold `action` for a block: frame, reward 0, never terminated, never truncated, info.

        Raises `ActionError` for an action that is not in the space, `InputError` before `reset`.
        """
        if self._session is None:
            raise InputError("step: reset the environment first")
        frames = self._session.step(self._action(action))
        self._frame = frames[-1]
        return self._frame, 0.0, False, False, {"frames": frames}

    def render(self) -> Frame | None:
        """The newest frame in render mode "rgb_array"."""
        return self._frame if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Give back what the session holds; `reset` begins another."""
        self._session = None

    def _action(self, action: Any) -> Action:
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
            given = " ".join(repr(action).split())  # arrays take several lines
            raise ActionError(f"action: {given:.200} is not in {self.action_space}") from None


def _numbers(values: Any, count: int) -> tuple[float, ...]:
    row = np.asarray(values)
    if row.shape != (count,) or row.dtype.kind not in "biuf":
        raise ValueError
    return tuple(map(float, row))


def _actions(world: World) -> gymnasium.Space:
    space, spaces = world.space, gymnasium.spaces
    if space.idle:
        return spaces.Discrete(len(space.keyboard))
    parts: dict[str, gymnasium.Space] = {"keyboard": spaces.MultiBinary(len(space.keyboard))}
    if space.has_mouse:
        parts["mouse"] = spaces.Box(-1, 1, (2,), np.float32)
    return spaces.Dict(parts)


def _sample() -> Picture:
    samples = sorted((EMBEDDED / "pictures").glob("*.png"))
    if not samples:
        raise InputError("picture: needed; this installation has no sample pictures")
    return samples[0]


gymnasium.register("glassworld/World-v0", entry_point=WorldEnv)
