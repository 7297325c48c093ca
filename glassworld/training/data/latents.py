"""Episodes as latents: encoded once, then read by every step of the transformer's training."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from glassworld.files import replacing
from glassworld.models.vae.encoder import VAEEncoder
from glassworld.progress import show_progress
from glassworld.specs import TIME_FACTOR
from glassworld.training.data.collect import is_complete, load_shard
from glassworld.training.data.dataset import to_pixels

NEAR_FRAMES = 9
"""Latent frames of the condition that are stored per episode. Later ones equal the limit."""

CLIPS_AT_ONCE = {"cpu": 1, "cuda": 16}
"""Clips encoded together: the caches of a CPU hold one, a GPU needs many to be busy."""


@dataclass(frozen=True)
class LatentEpisodes:
    """Episodes as the transformer sees them.

    The condition is the start image followed by gray frames, encoded.

    Attributes
    ----------
    frames_per_block
        Latent frames per block.
    latents
        float16 [E, T, C, h, w].
    condition
        float16 [E, NEAR_FRAMES, C, h, w].
    condition_limit
        [C, h, w], the latent frame that the condition converges to.
    start_images
        uint8 [E, H, W, 3].
    keyboard
        [E, N, keys], one row per pixel frame, as are `mouse` and `pose`.
    mouse
        [E, N, 2], or [E, N, 0] in modes without a mouse.
    pose
        [E, N, P], see `Source.pose`.
    """

    frames_per_block: int
    latents: Tensor
    condition: Tensor
    condition_limit: Tensor
    start_images: Tensor
    keyboard: Tensor
    mouse: Tensor
    pose: Tensor

    def to(self, device: torch.device) -> "LatentEpisodes":
        """Copy to another device."""
        return LatentEpisodes(self.frames_per_block, *(part.to(device) for part in self.tensors))

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All tensors, in the order of `TENSOR_NAMES`."""
        return (
            self.latents,
            self.condition,
            self.condition_limit,
            self.start_images,
            self.keyboard,
            self.mouse,
            self.pose,
        )

    @property
    def blocks(self) -> int:
        """Whole blocks in an episode."""
        return self.latents.shape[1] // self.frames_per_block


LIMIT_NAME = "far"
TENSOR_NAMES = ("latents", "grey", LIMIT_NAME, "pictures", "keyboard", "mouse", "pose")
"""Names in the files, in the order of the tensors of `LatentEpisodes`."""


def encode_episodes(
    encoder: VAEEncoder, source: Path, folder: Path, frames_per_block: int
) -> LatentEpisodes:
    """Encode the shards in `source` whose latents in `folder` are missing or damaged.

    Parameters
    ----------
    encoder
        Encodes on its device.
    source
        Folder of the shards of episodes.
    folder
        Takes a file of latents for each of them.
    frames_per_block
        Latent frames per block of the world.

    Returns
    -------
    The latents of all shards.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shards = [path for path in sorted(source.glob("shard-*.safetensors")) if is_complete(path)]
    for shard in show_progress(shards, "encoding episodes", len(shards)):
        if not is_complete(folder / shard.name, TENSOR_NAMES):
            encode_shard(encoder, shard, folder / shard.name)
    files = [load_file(folder / shard.name) for shard in shards]
    tensors = (
        files[0][name] if name == LIMIT_NAME else torch.cat([file[name] for file in files])
        for name in TENSOR_NAMES
    )
    return LatentEpisodes(frames_per_block, *tensors)


@torch.no_grad()
def encode_shard(encoder: VAEEncoder, source: Path, target: Path) -> None:
    """Encode one shard of episodes into one file of latents, on the device of the encoder."""
    episodes = load_shard(source)
    frames = torch.from_numpy(episodes.frames)
    device = encoder.conv1.weight.device
    batches = frames.split(CLIPS_AT_ONCE[device.type])
    near = 1 + TIME_FACTOR * (NEAR_FRAMES - 1)
    receptive_field = 1 + TIME_FACTOR * (encoder.spec.encoder_receptive_field + 1)
    tensors = (
        torch.cat([_encode(encoder, to_pixels(batch.to(device))) for batch in batches]),
        torch.cat([_encode_condition(encoder, batch[:, :1].to(device), near) for batch in batches]),
        _encode_condition(encoder, frames[:1, :1].to(device), receptive_field)[0, -1].contiguous(),
        frames[:, 0].contiguous(),
        torch.from_numpy(episodes.keyboard),
        torch.from_numpy(episodes.mouse),
        torch.from_numpy(episodes.pose),
    )
    with replacing(target) as draft:
        save_file(dict(zip(TENSOR_NAMES, tensors, strict=True)), draft)


def _encode(encoder: VAEEncoder, pixels: Tensor) -> Tensor:
    return encoder(pixels).transpose(1, 2).half().contiguous().cpu()


def _encode_condition(encoder: VAEEncoder, start_images: Tensor, frames: int) -> Tensor:
    pixels = to_pixels(start_images)
    padding = pixels.new_zeros(*pixels.shape[:2], frames - 1, *pixels.shape[3:])
    return _encode(encoder, torch.cat([pixels, padding], 2))
