"""Play the simulator and keep what was seen: shards of episodes, resumable, reproducible."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from glassworld.errors import InputError
from glassworld.training.sources.maze import HEIGHT, WIDTH, Frame, MazeEnvironment
from glassworld.training.sources.policies import POLICIES, Player

LATENT_STRIDE = 4


@dataclass(frozen=True)
class Collection:
    """What to collect.

    Args:
        folder: where the shards go, `shard-00000.safetensors` and so on.
        seed: the collection's; held-out play takes another.
        shards: how many files.
        episodes: episodes in a file.
        frames: content frames in an episode, 1 + 4n.
    """

    folder: Path
    seed: int
    shards: int
    episodes: int = 64
    frames: int = 121

    def __post_init__(self) -> None:
        if self.frames % LATENT_STRIDE != 1:
            raise InputError(f"frames is {self.frames}: an episode has 1 + 4n frames")

    def path(self, shard: int) -> Path:
        return self.folder / f"shard-{shard:05d}.safetensors"


class Episodes(NamedTuple):
    """Some play: frames uint8 [E, N, H, W, 3]; keyboard [E, N, 4]; mouse [E, N, 2]; pose
    [E, N, 3]. Row j of the actions is what was held while frame j came into being; row 0
    repeats row 1."""

    frames: Frame
    keyboard: NDArray[np.float32]
    mouse: NDArray[np.float32]
    pose: NDArray[np.float32]


def collect(collection: Collection) -> list[Path]:
    """Write the shards that are missing or damaged. Returns all paths.

    A shard depends on the seed and its number alone, so an interrupted collection goes on
    where it was, and gives the same files.
    """
    collection.folder.mkdir(parents=True, exist_ok=True)
    paths = [collection.path(shard) for shard in range(collection.shards)]
    missing = [shard for shard, path in enumerate(paths) if not is_whole(path)]
    for shard in track(missing, description=f"playing, seed {collection.seed}"):
        episodes = play(collection.episodes, collection.frames, (collection.seed, shard))
        draft = paths[shard].with_suffix(".part")
        save_file(episodes._asdict(), draft)
        draft.replace(paths[shard])
    return paths


def play(episodes: int, frames: int, seed: tuple[int, int]) -> Episodes:
    """Play episodes by the policies, each from a fresh place."""
    rng = np.random.default_rng(seed)
    simulator = MazeEnvironment(seed=int(rng.integers(2**31)))
    try:
        return stack([play_one(simulator, frames, rng) for _ in range(episodes)])
    finally:
        simulator.close()


def stack(episodes: list[Episodes]) -> Episodes:
    """Episodes of equal length as one."""
    return Episodes(*(np.stack(field) for field in zip(*episodes, strict=True)))


def play_one(simulator: MazeEnvironment, frames: int, rng: np.random.Generator) -> Episodes:
    """One episode by a policy drawn by its share; the arrays lack the first axis."""
    shares = [share for _, share in POLICIES.values()]
    name = rng.choice(list(POLICIES), p=shares)
    policy = POLICIES[str(name)][0](Player(rng, block_aligned=bool(rng.random() < 0.5)))

    pictures = [simulator.reset()]
    poses = [simulator.pose]
    keyboard: list[tuple[float, ...]] = []
    mouse: list[tuple[float, float]] = []
    segment = next(policy)
    while len(pictures) < frames:
        for _ in range(min(segment.length * LATENT_STRIDE, frames - len(pictures))):
            pictures.append(simulator.advance(segment.keyboard, segment.mouse))
            poses.append(simulator.pose)
            keyboard.append(segment.keyboard)
            mouse.append(segment.mouse)
        segment = policy.send(simulator.clearance)
    return Episodes(
        np.stack(pictures),
        np.array([keyboard[0], *keyboard], np.float32),
        np.array([mouse[0], *mouse], np.float32),
        np.array(poses, np.float32),
    )


def is_whole(path: Path, names: tuple[str, ...] = Episodes._fields) -> bool:
    """Whether a shard is there, readable to its end, and has the tensors `names`."""
    try:
        with safe_open(path, framework="numpy") as shard:
            return set(shard.keys()) == set(names)
    except (SafetensorError, OSError):
        return False


def load(path: Path) -> Episodes:
    """Read a shard.

    Raises:
        InputError: it is missing, cut short or of another kind.
    """
    if not is_whole(path):
        raise InputError(f"{path} is no readable shard: delete it and collect again")
    with safe_open(path, framework="numpy") as shard:
        return Episodes(*(shard.get_tensor(name) for name in Episodes._fields))


def contact_sheet(episodes: Episodes, rows: int = 12, columns: int = 12) -> Image.Image:
    """Pictures to look at: one episode a row, evenly through its time."""
    rows = min(rows, len(episodes.frames))
    sheet = Image.new("RGB", (columns * WIDTH, rows * HEIGHT))
    moments = np.linspace(0, episodes.frames.shape[1] - 1, columns).astype(int)
    for row in range(rows):
        for column, moment in enumerate(moments):
            picture = Image.fromarray(episodes.frames[row, moment])
            sheet.paste(picture, (column * WIDTH, row * HEIGHT))
    return sheet
