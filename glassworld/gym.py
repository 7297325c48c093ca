"""Worlds as Gymnasium environments, for agents.

    import gymnasium, glassworld.gym
    env = gymnasium.make("glassworld/maze-v0")
    envs = gymnasium.make_vec("glassworld/maze-v0", 4)  # one batched forward for all of them
    env = gymnasium.make("glassworld/World-v0", world="runs/drive/world")

Importing this module registers every embedded world by its name, and `World-v0` for any other.
Without the import, name the module: `gymnasium.make("glassworld.gym:glassworld/maze-v0")`.

One step holds one action for a block of frames. A world has no goal: rewards are 0 unless you give
`reward=`, and episodes never end. Wrap the environment to end them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from glassworld.engine.actions.track import Action, ActionSpace
from glassworld.engine.batch import SessionBatch, supports_batching
from glassworld.engine.checkpoint.load import load_world
from glassworld.engine.checkpoint.locate import DEFAULT_WORLD, WORLDS, embedded_worlds
from glassworld.engine.media.images import as_bytes, load_start_image
from glassworld.engine.session import Session
from glassworld.engine.world import World
from glassworld.errors import ActionError, InputError, MissingExtraError
from glassworld.specs import TIME_FACTOR, WorldSpec

if TYPE_CHECKING:
    from glassworld.engine.media.images import ImageSource

try:
    import gymnasium
    from gymnasium.vector.utils import batch_space, iterate
except ModuleNotFoundError:
    raise MissingExtraError("gymnasium", "play") from None

Frame = npt.NDArray[np.uint8]
Reward = Callable[[Frame, Any], float]


class WorldEnv(gymnasium.Env):  # type: ignore[misc]
    """An environment that runs one session of a world.

    An observation is the newest frame, uint8 [H, W, 3]; `info["frames"]` holds the whole block,
    [n, H, W, 3] (the first block is shorter). Where keys can be combined, an action is a
    dictionary of `keyboard` (MultiBinary, one entry per key) and, in modes with a mouse, `mouse`
    (vertical, horizontal in [-1, 1]; up and right are positive; a camera key moves by 0.1). Where
    keys cannot be combined, an action is the number of the key.

    `reset(seed=...)` seeds the noise of all later frames and, where no image was given, chooses
    one of the start images of the world, by its name or folder; others take the embedded drive's.
    `reset(options={"image": ...})`, in any form of `ImageSource`, changes the start image.

    `reward(frames, action)` returns the reward of a step from its block of frames. Without it,
    rewards are 0, and `reset`'s info says so under "reward".

    Render mode "rgb_array" renders the last frame of each block, at `render_fps` blocks a second,
    so that `RecordVideo` shows real time. "rgb_array_list" returns every frame since the last
    call, at `render_fps` frames a second.
    """

    metadata = {"render_modes": ["rgb_array", "rgb_array_list"], "render_fps": 12}  # noqa: RUF012 - as in gymnasium

    def __init__(
        self,
        world: World | str | None = None,
        image: ImageSource | None = None,
        render_mode: str | None = None,
        reward: Reward | None = None,
        *,
        picture: ImageSource | None = None,  # the former name of `image`
    ) -> None:
        """Use `world` (default: the embedded drive), starting from `image`.

        A name is that of an embedded world, or a world's folder. All environments of a process
        share its weights.
        """
        self._starts = _Starts.of(world, picture if image is None else image)
        self.world = self._starts.world
        self.render_mode = _checked_mode(render_mode, self.metadata)
        self.metadata = {**self.metadata, "render_fps": _render_fps(self.world.spec, render_mode)}
        self.action_space = _gym_action_space(self.world.space)
        self.observation_space = _gym_observation_space(self.world.spec)
        self._reward = reward
        self._unrendered: list[Frame] = []
        self._session: Session | None = None
        self._frame: Frame = np.zeros(self.observation_space.shape, np.uint8)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Frame, dict[str, Any]]:
        """Start a session; return the start image at the world's size, and the info.

        Raises `InputError` if there is no start image.
        """
        super().reset(seed=seed)
        self._session, self._frame, session_seed = self._starts.start(self.np_random, options)
        self._unrendered = [self._frame]
        info = {"frames": self._frame[None], "seed": session_seed}
        if self._reward is None:
            info["reward"] = NO_REWARD
        return self._frame.copy(), info

    def step(self, action: Any) -> tuple[Frame, float, bool, bool, dict[str, Any]]:
        """Hold `action` for one block; return the last frame, the reward, False, False, the info.

        Raises `ActionError` for an action outside the action space, `InputError` before `reset`.
        """
        if self._session is None:
            raise InputError("step: call reset() first")
        held = _to_action(self.world.space, self.action_space, action)
        frames = self._session.step(held)
        self._frame = frames[-1]
        if self.render_mode == "rgb_array_list":
            self._unrendered += list(frames)
        reward = 0.0 if self._reward is None else float(self._reward(frames, action))
        return self._frame.copy(), reward, False, False, {"frames": frames}

    def render(self) -> Frame | list[Frame] | None:
        """Return the newest frame, or the list of those since the last call; None without mode."""
        if self.render_mode == "rgb_array_list":
            frames, self._unrendered = self._unrendered, []
            return frames
        return self._frame if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Release the session's memory; `reset` starts another session."""
        self._session = None


class WorldVectorEnv(gymnasium.vector.VectorEnv):  # type: ignore[misc]
    """Several environments of one world whose blocks come from one batched forward.

    `gymnasium.make_vec` makes it by default. Observations, rewards and actions are batched as in
    Gymnasium's own vector environments, and `info["frames"]` holds the blocks,
    [num_envs, n, H, W, 3]. With the same seeds the frames are those of a `WorldEnv` each, up to
    rounding (1 of 255).

    `reset` resets all of them: the seed of environment i is `seed` + i, or the entry i of a list.

    With `max_episode_steps` all episodes are truncated after so many steps, and the next step
    resets all of them, whatever its actions.
    """

    metadata = {  # noqa: RUF012 - as in gymnasium
        "render_modes": ["rgb_array"],
        "render_fps": 12,
        "autoreset_mode": gymnasium.vector.AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        num_envs: int = 1,
        world: World | str | None = None,
        image: ImageSource | None = None,
        render_mode: str | None = None,
        reward: Reward | None = None,
        max_episode_steps: int | None = None,
    ) -> None:
        """Use `world` as `WorldEnv` does, in `num_envs` sessions.

        Raises `InputError` for a world that is compiled or captured for one session.
        """
        self._starts = _Starts.of(world, image)
        self.world, self.num_envs = self._starts.world, num_envs
        if not supports_batching(self.world):
            raise InputError(
                "make_vec: this world is compiled for one session; load it without graphs and "
                'compiled parts, or use vectorization_mode="sync"'
            )
        self.render_mode = _checked_mode(render_mode, self.metadata)
        self.metadata = {**self.metadata, "render_fps": _render_fps(self.world.spec, "rgb_array")}
        self.single_action_space = _gym_action_space(self.world.space)
        self.single_observation_space = _gym_observation_space(self.world.spec)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self._reward = reward
        self._max_steps, self._steps = max_episode_steps or -1, 0
        self._randoms: list[np.random.Generator] = []
        self._batch: SessionBatch | None = None
        self._frames: Frame = np.zeros(self.observation_space.shape, np.uint8)

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Frame, dict[str, Any]]:
        """Start all sessions; return their start images and the info (see `WorldEnv.reset`).

        Raises `InputError` for a list of seeds of another length.
        """
        if seed is not None or not self._randoms:
            seeds = list(seed) if isinstance(seed, Sequence) else self._consecutive(seed)
            if len(seeds) != self.num_envs:
                raise InputError(
                    f"seed: {len(seeds)} seeds for {self.num_envs} environments; give one for each"
                )
            self._randoms = [gymnasium.utils.seeding.np_random(each)[0] for each in seeds]
        started = [self._starts.start(random, options) for random in self._randoms]
        self._batch = SessionBatch([start.session for start in started])
        self._steps = 0
        self._frames = np.stack([start.frame for start in started])
        info = {"frames": self._frames[:, None], "seed": np.array([s.seed for s in started])}
        if self._reward is None:
            info["reward"] = np.array([NO_REWARD] * self.num_envs, object)
        return self._frames.copy(), self._with_masks(info)

    def step(self, actions: Any) -> tuple[Frame, npt.NDArray[np.float64], Any, Any, dict[str, Any]]:
        """Hold one action each for one block; the results are batched (see `WorldEnv.step`)."""
        if self._batch is None:
            raise InputError("step: call reset() first")
        never = np.zeros(self.num_envs, bool)
        if self._steps == self._max_steps:
            images, info = self.reset()
            return images, np.zeros(self.num_envs), never, never.copy(), info
        rows = list(iterate(self.action_space, actions))
        space = self.world.space
        held = [_to_action(space, self.single_action_space, row) for row in rows]
        blocks = self._batch.step(held)
        self._frames = np.stack([frames[-1] for frames in blocks])
        rewards = np.zeros(self.num_envs)
        if self._reward is not None:
            rewards[:] = [self._reward(*pair) for pair in zip(blocks, rows, strict=True)]
        self._steps += 1
        truncated = np.full(self.num_envs, self._steps == self._max_steps)
        info = self._with_masks({"frames": np.stack(blocks)})
        return self._frames.copy(), rewards, never, truncated, info

    def render(self) -> tuple[Frame, ...] | None:
        """Return the newest frame of each environment; None without a render mode."""
        return tuple(self._frames) if self.render_mode == "rgb_array" else None

    def close_extras(self, **_: Any) -> None:
        """Release the sessions' memory; `reset` starts others."""
        self._batch = None

    def _consecutive(self, seed: int | None) -> list[int | None]:
        """Return a seed for each environment, from `seed` on; None stands for any."""
        return [None if seed is None else seed + index for index in range(self.num_envs)]

    def _with_masks(self, info: dict[str, Any]) -> dict[str, Any]:
        """Add to each entry which environments have it: all."""
        return {**info, **{f"_{name}": np.ones(self.num_envs, bool) for name in info}}


class _Started(NamedTuple):
    """A session, its start image at the world's size [H, W, 3], and its seed."""

    session: Session
    frame: Frame
    seed: int


class _Starts(NamedTuple):
    """How sessions of an environment start: the world, and its image or images to choose from."""

    world: World
    image: ImageSource | None
    samples: Path

    @staticmethod
    def of(world: World | str | None, image: ImageSource | None) -> _Starts:
        """Load a world that is named; one without known images takes the default world's."""
        if isinstance(world, World):
            loaded, folder = world, WORLDS / world.name
        else:
            name = str(world or DEFAULT_WORLD)
            loaded = _named_world(name)
            folder = WORLDS / name if name in embedded_worlds() else Path(name)
        samples = folder / "pictures"
        default = WORLDS / DEFAULT_WORLD / "pictures"
        return _Starts(loaded, image, samples if samples.is_dir() else default)

    def start(self, random: np.random.Generator, options: dict[str, Any] | None) -> _Started:
        """Start a session; `random` chooses its seed and, if no image is given, a sample."""
        seed = int(random.integers(2**32))
        options = options or {}
        image = options.get("image", options.get("picture", self.image))
        if image is None:
            samples = sorted(self.samples.glob("*.png"))
            if not samples:
                raise InputError("image: give a start image; this installation has no samples")
            image = samples[random.integers(len(samples))]
        spec = self.world.spec
        pixels = load_start_image(image, spec.height, spec.width)
        return _Started(self.world.start(image, seed), as_bytes(pixels), seed)


def _checked_mode(render_mode: str | None, metadata: dict[str, Any]) -> str | None:
    """Return a render mode; raise `InputError` unless there is none or an environment has it."""
    modes = metadata["render_modes"]
    if render_mode is not None and render_mode not in modes:
        raise InputError(
            f"render_mode: {render_mode!r:.40} is not one of {', '.join(modes)}; choose one of "
            "them, or none"
        )
    return render_mode


def _to_action(space: ActionSpace, gym_space: gymnasium.Space, action: Any) -> Action:
    """Convert an element of the action space; raise `ActionError` for anything else."""
    try:
        if space.idle:
            if not gym_space.contains(action):
                raise ValueError
            return Action(tuple(float(key == action) for key in range(len(space.keyboard))))
        keyboard = _numbers(action["keyboard"], len(space.keyboard))
        if not space.has_mouse:
            return Action(keyboard)
        vertical, horizontal = _numbers(action["mouse"], 2)
        return Action(keyboard, (vertical, horizontal))
    except (LookupError, TypeError, ValueError):
        text = " ".join(repr(action).split())  # arrays span several lines
        raise ActionError(f"action: {text:.200} is not in {gym_space}; give one of it") from None


def _numbers(values: Any, count: int) -> tuple[float, ...]:
    """Return `count` real numbers as floats; raise `ValueError` for anything else."""
    row = np.asarray(values)
    if row.shape != (count,) or row.dtype.kind not in "biuf":
        raise ValueError
    return tuple(map(float, row))


def _gym_action_space(space: ActionSpace) -> gymnasium.Space:
    spaces = gymnasium.spaces
    if space.idle:
        return spaces.Discrete(len(space.keyboard))
    parts: dict[str, gymnasium.Space] = {"keyboard": spaces.MultiBinary(len(space.keyboard))}
    if space.has_mouse:
        parts["mouse"] = spaces.Box(-1, 1, (2,), np.float32)
    return spaces.Dict(parts)


def _gym_observation_space(spec: WorldSpec) -> gymnasium.Space:
    return gymnasium.spaces.Box(0, 255, (spec.height, spec.width, 3), np.uint8)


@cache
def _named_world(name: str) -> World:
    """Load a world once in a process."""
    return load_world(name)


def _render_fps(spec: WorldSpec, render_mode: str | None) -> float:
    """Return how many renderings make a second: of every frame, or of one frame per block."""
    if render_mode != "rgb_array":
        return spec.frame_rate
    return spec.frame_rate / (TIME_FACTOR * spec.frames_per_block)


NO_REWARD = "always 0; give reward=, a function of the frames and the action"

ENTRY_POINTS = {  # by name: specs with names can be pickled and written as JSON
    "entry_point": f"{__name__}:{WorldEnv.__name__}",
    "vector_entry_point": f"{__name__}:{WorldVectorEnv.__name__}",
}

gymnasium.register("glassworld/World-v0", **ENTRY_POINTS)
for _name in embedded_worlds():
    gymnasium.register(f"glassworld/{_name}-v0", kwargs={"world": _name}, **ENTRY_POINTS)
