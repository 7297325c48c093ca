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
from itertools import groupby
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from glassworld.engine.actions.track import Action, ActionSpace
from glassworld.engine.batch import SessionBatch, batch_key, supports_batching
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
Mask = npt.NDArray[np.bool_]
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

    `reset` resets all of them, or with `options={"reset_mask": mask}` those where the bool array is
    True; the others go on. The seed of environment i is `seed` + i, or the entry i of a list.

    With `max_episode_steps` an episode is truncated after so many steps, and the next step resets
    its environment, whatever the action.

    Each entry of the info has a mask, such as `info["_frames"]`, of the environments that have it.
    Where some of them have just started, their blocks are shorter: `info["frames"]` is then an
    array of one block for each environment.
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

        A `max_episode_steps` of -1 means None, as in Gymnasium. Raises `InputError` for a world
        that is compiled or captured for one session, and for numbers below 1.
        """
        _check_count("num_envs", num_envs)
        if max_episode_steps not in (None, -1):
            _check_count("max_episode_steps", max_episode_steps)
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
        self._max_steps = -1 if max_episode_steps is None else max_episode_steps
        self._steps = np.zeros(num_envs, int)
        self._randoms: list[np.random.Generator] = []
        self._sessions: list[Session] = []
        self._batches: dict[tuple[int, ...], SessionBatch] = {}
        self._frames: Frame = np.zeros(self.observation_space.shape, np.uint8)

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Frame, dict[str, Any]]:
        """Start sessions; return the newest frame of each, and the info (see `WorldEnv.reset`).

        Raises `InputError` for a list of seeds of another length, and for a mask that does not fit.
        """
        mask = self._reset_mask(options)
        if seed is not None or not self._randoms:
            self._reseed(seed, mask)
        info = self._gathered(self._start(mask, options))
        return self._frames.copy(), info

    def step(self, actions: Any) -> tuple[Frame, npt.NDArray[np.float64], Any, Any, dict[str, Any]]:
        """Hold one action each for one block; the results are batched (see `WorldEnv.step`)."""
        if not self._sessions:
            raise InputError("step: call reset() first")
        ended = self._steps == self._max_steps
        rows = self._rows(actions)
        space = self.world.space
        held = {
            index: _to_action(space, self.single_action_space, rows[index])
            for index in _indices(~ended)
        }
        infos = self._start(ended, None) if ended.any() else {}
        rewards = np.zeros(self.num_envs)
        for index, frames in self._generate(held).items():
            infos[index] = {"frames": frames}
            self._frames[index] = frames[-1]
            self._steps[index] += 1
            if self._reward is not None:
                rewards[index] = self._reward(frames, rows[index])
        truncated = self._steps == self._max_steps
        never = np.zeros(self.num_envs, bool)
        return self._frames.copy(), rewards, never, truncated, self._gathered(infos)

    def render(self) -> tuple[Frame, ...] | None:
        """Return the newest frame of each environment; None without a render mode."""
        return tuple(self._frames.copy()) if self.render_mode == "rgb_array" else None

    def close_extras(self, **_: Any) -> None:
        """Release the sessions' memory; `reset` starts others."""
        self._sessions, self._batches = [], {}

    def _rows(self, actions: Any) -> list[Any]:
        """Return each environment's action; raise `ActionError` unless there is one for each."""
        try:
            rows = list(iterate(self.action_space, actions))
        except (LookupError, TypeError, ValueError):  # no dictionary, or its arrays do not fit
            rows = []
        if len(rows) != self.num_envs:
            raise ActionError(
                f"actions: not one for each of {self.num_envs} environments; give arrays as "
                "action_space.sample() does"
            )
        return rows

    def _reset_mask(self, options: dict[str, Any] | None) -> Mask:
        """Return which environments to reset; all of them if the options do not say."""
        if options is None or "reset_mask" not in options:
            return np.ones(self.num_envs, bool)
        mask, shape = options["reset_mask"], (self.num_envs,)
        is_array = isinstance(mask, np.ndarray)
        if not is_array or mask.dtype != bool or mask.shape != shape or not mask.any():
            given = f"{mask.dtype} of shape {mask.shape}" if is_array else type(mask).__name__
            raise InputError(
                f"reset_mask: is {given}; give a bool array of shape {shape} with at least one True"
            )
        if not self._sessions:
            raise InputError("reset_mask: nothing has started yet; call reset() without it first")
        return np.array(mask, bool)

    def _reseed(self, seed: int | Sequence[int | None] | None, mask: Mask) -> None:
        """Seed the masked environments: from `seed` on, or by a list; None stands for any."""
        if isinstance(seed, Sequence):
            seeds = list(seed)
        else:
            seeds = [None if seed is None else seed + index for index in range(self.num_envs)]
        if len(seeds) != self.num_envs:
            raise InputError(
                f"seed: {len(seeds)} seeds for {self.num_envs} environments; give one for each"
            )
        self._randoms = [
            gymnasium.utils.seeding.np_random(own)[0] if mask[index] else self._randoms[index]
            for index, own in enumerate(seeds)
        ]

    def _start(self, mask: Mask, options: dict[str, Any] | None) -> dict[int, dict[str, Any]]:
        """Start the masked environments over; return the info of each."""
        started = {
            index: self._starts.start(self._randoms[index], options) for index in _indices(mask)
        }
        self._batches = {}  # they hold the sessions that end here
        self._sessions = [
            started[index].session if mask[index] else self._sessions[index]
            for index in range(self.num_envs)
        ]
        self._steps[mask] = 0
        infos: dict[int, dict[str, Any]] = {}
        for index, start in started.items():
            self._frames[index] = start.frame
            infos[index] = {"frames": start.frame[None], "seed": start.seed}
            if self._reward is None:
                infos[index]["reward"] = NO_REWARD
        return infos

    def _generate(self, held: dict[int, Action]) -> dict[int, Frame]:
        """Return the next block of each of some environments.

        Those that can generate together do; after a reset of some, their ages may forbid it.
        """
        batches, blocks = {}, dict[int, Frame]()

        def key(index: int) -> tuple[int, ...]:
            return batch_key(self._sessions[index])

        for _, group in groupby(sorted(held, key=key), key):
            indices = tuple(group)
            batch = self._batches.get(indices)
            if batch is None:
                batch = SessionBatch([self._sessions[index] for index in indices])
            batches[indices] = batch
            made = batch.step([held[index] for index in indices])
            blocks.update(zip(indices, made, strict=True))
        self._batches = batches
        return blocks

    def _gathered(self, infos: dict[int, dict[str, Any]]) -> dict[str, Any]:
        """Return an array for each entry of the environments' infos, and the mask of who has it."""
        gathered: dict[str, Any] = {}
        for name in dict.fromkeys(name for info in infos.values() for name in info):
            values = {index: info[name] for index, info in infos.items() if name in info}
            gathered[name] = _by_environment(values, self.num_envs)
            gathered[f"_{name}"] = np.isin(np.arange(self.num_envs), list(values))
        return gathered


def _indices(mask: Mask) -> list[int]:
    """Return where a mask is True."""
    return [int(index) for index in np.flatnonzero(mask)]


def _by_environment(values: dict[int, Any], count: int) -> npt.NDArray[Any]:
    """Return an array of `count` entries, with 0 or None where there is no value.

    It holds objects if the values are text, or arrays of several shapes.
    """
    arrays = [np.asarray(value) for value in values.values()]
    first = arrays[0]
    if first.dtype.kind == "U" or any(array.shape != first.shape for array in arrays):
        entries = np.full(count, None, object)
    else:
        entries = np.zeros((count, *first.shape), first.dtype)
    for index, value in values.items():
        entries[index] = value
    return entries


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


def _check_count(name: str, value: Any) -> None:
    """Raise `InputError` unless a value is a whole number of at least 1."""
    if not isinstance(value, Integral) or value < 1:
        raise InputError(f"{name}: is {value!r:.40}; give a whole number of at least 1")


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
