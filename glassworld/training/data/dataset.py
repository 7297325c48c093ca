"""A dataset of collected episodes, in memory."""

from pathlib import Path

import torch
from torch import Tensor

from glassworld.errors import InputError
from glassworld.training.data.collect import is_complete, load_shard


class EpisodeDataset:
    """All readable shards of a folder in memory, 8 bits per channel.

    Damaged shards are reported and left out.

    Parameters
    ----------
    folder
        Folder of the shards.

    Attributes
    ----------
    frames
        uint8 [E, N, H, W, 3].
    keyboard
        float32 [E, N, keys].
    mouse
        float32 [E, N, 2], or [E, N, 0] in modes without a mouse.
    pose
        float32 [E, N, P], see `Source.pose`.

    Raises
    ------
    InputError
        No shard is readable.
    """

    def __init__(self, folder: Path) -> None:
        paths = sorted(folder.glob("shard-*.safetensors"))
        complete = [path for path in paths if is_complete(path)]
        for path in sorted(set(paths) - set(complete)):
            print(f"{path}: damaged, left out; delete it and collect again")
        if not complete:
            raise InputError(f"{folder}: no readable shard; collect episodes first")
        shards = [load_shard(path) for path in complete]
        self.frames = _concatenate([torch.from_numpy(shard.frames) for shard in shards])
        self.keyboard = torch.cat([torch.from_numpy(shard.keyboard) for shard in shards])
        self.mouse = torch.cat([torch.from_numpy(shard.mouse) for shard in shards])
        self.pose = torch.cat([torch.from_numpy(shard.pose) for shard in shards])

    def __len__(self) -> int:
        return len(self.frames)

    def clips(self, batch_size: int, length: int, random: torch.Generator) -> Tensor:
        """Draw random clips as float32 [B, 3, length, H, W] in [-1, 1]."""
        episodes = torch.randint(len(self), (batch_size,), generator=random)
        last = self.frames.shape[1] - length
        starts = torch.randint(last + 1, (batch_size,), generator=random)
        rows = [
            self.frames[episode, start : start + length]
            for episode, start in zip(episodes, starts, strict=True)
        ]
        return to_pixels(torch.stack(rows))


def _concatenate(parts: list[Tensor]) -> Tensor:
    """Concatenate and free each part as soon as it is copied, because shards are large."""
    total = sum(len(part) for part in parts)
    whole = parts[0].new_empty(total, *parts[0].shape[1:])
    start = 0
    while parts:
        part = parts.pop(0)
        whole[start : start + len(part)] = part
        start += len(part)
    return whole


def to_pixels(frames: Tensor) -> Tensor:
    """Convert uint8 [B, N, H, W, 3] to float32 [B, 3, N, H, W] in [-1, 1]."""
    return frames.permute(0, 4, 1, 2, 3).float().div(127.5).sub(1)
