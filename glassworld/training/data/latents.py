"""Play as latents: encoded once, then read by every step of the transformer's training."""

from pathlib import Path
from typing import NamedTuple

import torch
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor

from glassworld.models.vae.encoder import VAEEncoder
from glassworld.specs import TIME_FACTOR
from glassworld.training.data.collect import is_whole, load
from glassworld.training.data.dataset import to_pixels
from glassworld.training.objectives.vae import VAE

NEAR_FRAMES = 9
"""Latent frames of "the picture, then grey" kept per episode; later ones are as good as `far`."""


AT_ONCE = {"cpu": 1, "cuda": 16}
"""Clips encoded together: a processor's caches hold one, a GPU is idle with so few."""


class LatentPlay(NamedTuple):
    """Episodes as the transformer sees them.

    latents: float16 [E, T, C, h, w]; grey: float16 [E, NEAR_FRAMES, C, h, w], the start picture
    and then grey frames; far: [C, h, w], what grey frames settle at; pictures: uint8
    [E, H, W, 3]; keyboard: [E, N, 4], mouse: [E, N, 2] and pose: [E, N, 3], one row per pixel
    frame.
    """

    latents: Tensor
    grey: Tensor
    far: Tensor
    pictures: Tensor
    keyboard: Tensor
    mouse: Tensor
    pose: Tensor

    def to(self, device: torch.device) -> "LatentPlay":
        """The same on another device."""
        return LatentPlay(*(part.to(device) for part in self))

    @property
    def blocks(self) -> int:
        """Whole blocks of three latent frames in an episode."""
        return self.latents.shape[1] // 3


@torch.no_grad()
def fold(vae: VAE, shift: Tensor, scale: Tensor) -> None:
    """Change what latents mean, exactly: the new ones are (old - shift) / scale, per channel."""
    encoder, decoder = vae.encoder.conv1, vae.decoder.conv2
    channels = len(shift)
    assert encoder.bias is not None
    assert decoder.bias is not None
    encoder.weight[:channels] /= scale.view(-1, 1, 1, 1)
    encoder.bias[:channels] = (encoder.bias[:channels] - shift) / scale
    decoder.bias += (decoder.weight[:, :, 0, 0] * shift).sum(1)
    decoder.weight *= scale.view(1, -1, 1, 1)


@torch.no_grad()
def normalise(vae: VAE, frames: Tensor) -> None:
    """Give the latents of these clips (uint8 [E, N, H, W, 3]) zero mean and unit variance."""
    latents = torch.cat([vae.encoder(to_pixels(clip[None])) for clip in frames])
    fold(vae, latents.mean((0, 2, 3, 4)), latents.std((0, 2, 3, 4)))


@torch.no_grad()
def encode_shard(vae: VAE, source: Path, target: Path) -> None:
    """Encode one shard of play, where the VAE is, into one file of latents."""
    play = load(source)
    frames = torch.from_numpy(play.frames)
    device = vae.decoder.conv2.weight.device
    together = frames.split(AT_ONCE[device.type])
    latents = [_clip(vae.encoder, to_pixels(clips.to(device))) for clips in together]
    pictures = frames[:, 0]
    near = 1 + TIME_FACTOR * (NEAR_FRAMES - 1)
    grey = [_grey(vae.encoder, clips[:, :1].to(device), near) for clips in together]
    reach = 1 + TIME_FACTOR * (vae.encoder.spec.encoder_receptive_field + 1)
    draft = target.with_suffix(".part")
    save_file(
        {
            "latents": torch.cat(latents),
            "grey": torch.cat(grey),
            "far": _grey(vae.encoder, frames[:1, :1].to(device), reach)[0, -1].contiguous(),
            "pictures": pictures.contiguous(),
            "keyboard": torch.from_numpy(play.keyboard),
            "mouse": torch.from_numpy(play.mouse),
            "pose": torch.from_numpy(play.pose),
        },
        draft,
    )
    draft.replace(target)


def _clip(encoder: VAEEncoder, pixels: Tensor) -> Tensor:
    return encoder(pixels).transpose(1, 2).half().contiguous().cpu()


def _grey(encoder: VAEEncoder, pictures: Tensor, frames: int) -> Tensor:
    pixels = to_pixels(pictures)
    padding = pixels.new_zeros(*pixels.shape[:2], frames - 1, *pixels.shape[3:])
    return _clip(encoder, torch.cat([pixels, padding], 2))


def encode_play(vae: VAE, play: Path, folder: Path) -> LatentPlay:
    """Encode the shards of a folder whose latents are missing or damaged; read them all."""
    folder.mkdir(parents=True, exist_ok=True)
    sources = [path for path in sorted(play.glob("shard-*.safetensors")) if is_whole(path)]
    for source in track(sources, description="encoding"):
        if not is_whole(folder / source.name, LatentPlay._fields):
            encode_shard(vae, source, folder / source.name)
    parts = [load_file(folder / source.name) for source in sources]
    whole = {name: torch.cat([part[name] for part in parts]) for name in parts[0] if name != "far"}
    return LatentPlay(far=parts[0]["far"], **whole)
