"""Collect episodes from the simulator: reproducible shards that resume after an interruption."""

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from glassworld.engine.media.images import shrink_frames
from glassworld.errors import InputError
from glassworld.files import replacing
from glassworld.progress import show_progress
from glassworld.specs import TIME_FACTOR
from glassworld.training.data.workers import worker_map
from glassworld.training.sources.registry import file_stem, open_source
from glassworld.training.sources.source import Frame, Source

SHOWN_PIXELS = 2 * 64 * 96
"""Most pixels of a frame in images for people. Larger frames are scaled down: a page of samples
of released sizes would otherwise take minutes to write and a hundred megabytes."""

MOST_ATTEMPTS = 20
"""Episodes per wanted episode that a source may end too early."""


@dataclass(frozen=True)
class CollectionConfig:
    """Size, seed and folder of a collection.

    Parameters
    ----------
    folder
        Takes the shards: `shard-00000.safetensors` and so on.
    seed
        Seed of the collection. Held-out episodes take another one.
    shards
        Number of files.
    episodes
        Episodes per file.
    frames
        Content frames per episode, 1 + 4n.
    source
        Name of the source.

    Raises
    ------
    InputError
        `frames` is not 1 + 4n.
    """

    folder: Path
    seed: int
    shards: int
    episodes: int = 64
    frames: int = 121
    source: str = "maze"

    def __post_init__(self) -> None:
        if self.frames % TIME_FACTOR != 1:
            raise InputError(f"frames is {self.frames}: an episode needs 1 + 4n frames")

    def path(self, shard: int) -> Path:
        """Return the path of a shard."""
        return self.folder / f"shard-{shard:05d}.safetensors"


class Episodes(NamedTuple):
    """Recorded episodes of one length.

    frames: uint8 [E, N, H, W, 3]; keyboard: [E, N, keys]; mouse: [E, N, 2], or [E, N, 0] in modes
    without a mouse; pose: [E, N, P], see `Source.pose`. Row j of the actions was held while frame j
    was rendered. Row 0 repeats row 1.
    """

    frames: Frame
    keyboard: NDArray[np.float32]
    mouse: NDArray[np.float32]
    pose: NDArray[np.float32]


def collect_shards(
    config: CollectionConfig, workers: int = 1, seconds: float | None = None
) -> list[Path]:
    """Write the shards that are missing or damaged.

    A shard depends on the seed and its number alone. So an interrupted collection resumes, and
    gives the same files.

    Parameters
    ----------
    config
        What to collect.
    workers
        Processes that collect at the same time.
    seconds
        Start no further shards after so long, once there is one. None: no limit.

    Returns
    -------
    The paths of the shards there are.
    """
    config.folder.mkdir(parents=True, exist_ok=True)
    paths = [config.path(shard) for shard in range(config.shards)]
    complete = {shard for shard, path in enumerate(paths) if is_complete(path)}
    missing = [shard for shard in range(config.shards) if shard not in complete]
    workers = max(1, min(workers, len(missing)))
    waves = [missing[start : start + workers] for start in range(0, len(missing), workers)]
    started = time.monotonic()
    with worker_map(workers) as run:
        label = f"collecting episodes, seed {config.seed}"
        for wave in show_progress(waves, label, len(waves)):
            if seconds is not None and complete and time.monotonic() - started >= seconds:
                break
            complete.update(run(partial(_write_shard, config), wave))
    return [paths[shard] for shard in sorted(complete)]


def _write_shard(config: CollectionConfig, shard: int) -> int:
    """Collect and write a shard; return its number."""
    seed = (config.seed, shard)
    episodes = record_episodes(config.source, config.episodes, config.frames, seed)
    save_shard(config.path(shard), episodes)
    return shard


def save_shard(path: Path, episodes: Episodes) -> None:
    """Write a shard, whole or not at all."""
    with replacing(path) as draft:
        save_file(episodes._asdict(), draft)


def record_episodes(name: str, count: int, frames: int, seed: tuple[int, int]) -> Episodes:
    """Record episodes of a source's scripted policies, each from a random place.

    Episodes that the source ends before they have so many frames are left out.

    Raises
    ------
    InputError
        The source ends almost every episode too early.
    """
    rng = np.random.default_rng(seed)
    episodes: list[Episodes] = []
    too_short: list[int] = []
    with open_source(name, int(rng.integers(2**31))) as source:
        while len(episodes) < count:
            episode = _record_episode(source, frames, rng)
            length = len(episode.frames)
            if length == frames:
                episodes.append(episode)
                continue
            too_short.append(length)
            if len(too_short) >= MOST_ATTEMPTS * (len(episodes) + 1):
                raise InputError(
                    f"{name}: its episodes end too early, after {median(too_short):g} frames "
                    f"(median of {len(too_short)}); training needs episodes of {frames}"
                )
    return Episodes(*(np.stack(field) for field in zip(*episodes, strict=True)))


def _record_episode(source: Source, length: int, rng: np.random.Generator) -> Episodes:
    """Record one episode of a random policy. The arrays lack the first axis.

    It has `length` frames, or fewer if the source ends it.
    """
    frames = [source.reset()]
    poses = [source.pose]
    policy = source.policy(rng)
    held = next(policy)
    keyboard: list[tuple[float, ...]] = []
    mouse: list[tuple[float, ...]] = []
    while len(frames) < length and not source.ended:
        for _ in range(min(held.length * TIME_FACTOR, length - len(frames))):
            if source.ended:
                break
            frames.append(source.advance(held.keyboard, held.mouse))
            poses.append(source.pose)
            keyboard.append(held.keyboard)
            mouse.append(held.mouse or ())
        held = next(policy)
    return Episodes(
        np.stack(frames),
        np.array([keyboard[0], *keyboard], np.float32),
        np.array([mouse[0], *mouse], np.float32),
        np.array(poses, np.float32),
    )


def is_complete(path: Path, names: tuple[str, ...] = Episodes._fields) -> bool:
    """Tell whether a shard exists, is readable to its end and has the tensors `names`."""
    try:
        with safe_open(path, framework="numpy") as shard:
            return set(shard.keys()) == set(names)
    except (SafetensorError, OSError):
        return False


def load_shard(path: Path) -> Episodes:
    """Read a shard of episodes.

    Raises
    ------
    InputError
        It is missing, truncated or has other tensors.
    """
    if not is_complete(path):
        raise InputError(f"{path}: not a readable shard; delete it and collect again")
    with safe_open(path, framework="numpy") as shard:
        return Episodes(*(shard.get_tensor(name) for name in Episodes._fields))


def load_first_frames(path: Path) -> Frame:
    """Read the first frame of each episode of a shard [E, H, W, 3], and nothing else of it."""
    with safe_open(path, framework="numpy") as shard:
        frames: Frame = shard.get_slice("frames")[:, 0]
        return frames


def contact_sheet(episodes: Episodes, rows: int = 12, columns: int = 12) -> Image.Image:
    """Draw an overview: one episode per row, evenly spaced frames, large ones scaled down."""
    indices = np.linspace(0, episodes.frames.shape[1] - 1, columns).astype(int)
    shown = [shrink_frames(frames[indices], SHOWN_PIXELS) for frames in episodes.frames[:rows]]
    return Image.fromarray(np.concatenate([np.concatenate(list(row), axis=1) for row in shown]))


def save_start_images(name: str, folder: Path, count: int = 8, seed: int = 77) -> None:
    """Write start images of a source into `folder`, `maze-1.png` and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    saved = 0
    with open_source(name, seed) as source:
        while saved < count:
            image = source.reset()
            if not source.is_good_start:
                continue
            saved += 1
            with replacing(folder / f"{file_stem(name)}-{saved}.png") as path:
                Image.fromarray(image).save(path)
