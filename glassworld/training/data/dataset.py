"""What was collected, as tensors to draw batches from."""

from pathlib import Path

import torch
from torch import Tensor

from glassworld.errors import InputError
from glassworld.training.data.collect import is_whole, load


class Play:
    """All readable shards of a folder in memory, 8 bits a channel.

    Damaged shards are named and left out.

    Attributes:
        frames: uint8 [E, N, H, W, 3]; keyboard, mouse, pose: float32 [E, N, 4 | 2 | 3].

    Raises:
        InputError: no shard is readable.
    """

    def __init__(self, folder: Path, limit: int | None = None) -> None:
        paths = sorted(folder.glob("shard-*.safetensors"))[:limit]
        whole = [path for path in paths if is_whole(path)]
        for path in set(paths) - set(whole):
            print(f"{path} is damaged and left out: delete it and collect again")
        if not whole:
            raise InputError(f"{folder} has no readable shard: collect first")
        shards = [load(path) for path in whole]
        self.frames = _joined([torch.from_numpy(shard.frames) for shard in shards])
        self.keyboard = torch.cat([torch.from_numpy(shard.keyboard) for shard in shards])
        self.mouse = torch.cat([torch.from_numpy(shard.mouse) for shard in shards])
        self.pose = torch.cat([torch.from_numpy(shard.pose) for shard in shards])

    def __len__(self) -> int:
        return len(self.frames)

    def clips(self, batch: int, length: int, random: torch.Generator) -> Tensor:
        """Random stretches as float32 [B, 3, length, H, W] in [-1, 1]."""
        episodes = torch.randint(len(self), (batch,), generator=random)
        last = self.frames.shape[1] - length
        starts = torch.randint(last + 1, (batch,), generator=random)
        rows = [
            self.frames[episode, start : start + length]
            for episode, start in zip(episodes, starts, strict=True)
        ]
        return to_pixels(torch.stack(rows))


def _joined(parts: list[Tensor]) -> Tensor:
    """`torch.cat`, giving each part back as soon as it is copied: shards are large."""
    total = sum(len(part) for part in parts)
    whole = parts[0].new_empty(total, *parts[0].shape[1:])
    start = 0
    while parts:
        part = parts.pop(0)
        whole[start : start + len(part)] = part
        start += len(part)
    return whole


def to_pixels(frames: Tensor) -> Tensor:
    """uint8 [B, N, H, W, 3] to float32 [B, 3, N, H, W] in [-1, 1]."""
    return frames.permute(0, 4, 1, 2, 3).float().div(127.5).sub(1)
