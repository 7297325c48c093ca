"""Train the VAE: first on images, then on clips, then the decoder alone.

Trained on clips from the start, a small Wan VAE stays on a plateau for long; trained on images it
leaves it at once. An image uses the present tap of every causal convolution only. So the past taps
start at zero, and the temporal resampling starts as "repeat". After the images the network already
reconstructs clips, four equal frames at a time, and then learns motion.

The loss is L1 on pixels (sharper than L2), L2 on pixels (weighs large errors more), L1 on the
differences of neighboring pixels (edges), and a small KL term that keeps the latents smooth enough
to be predicted with an error.

At last the decoder learns alone, on long clips. It needs more steps than the encoder, because it
has to learn what moves where between the latent frames. A step without the encoder costs less, and
latents that were encoded before stay valid.
"""

import math
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from glassworld.engine.media.images import psnr
from glassworld.models.vae.blocks import TemporalDownsample, TemporalUpsample
from glassworld.models.vae.causal_conv import CausalConv
from glassworld.models.vae.decoder import VAEDecoder
from glassworld.models.vae.encoder import VAEEncoder
from glassworld.specs import VAESpec
from glassworld.training.data.dataset import EpisodeDataset, to_pixels
from glassworld.training.trainer import CosineSchedule, Trainer, autocast, generator

DECODER_EMA_DECAY = 0.997
LOG_EVERY = 10
NORMALIZED_CLIPS = 64
"""Clips of the data that the mean and the variance of the latents are taken from."""


@dataclass(frozen=True)
class VAERecipe:
    """Size of the VAE and how it is trained.

    Parameters
    ----------
    width
        Channels of the first stage.
    residual_blocks
        Per stage.
    image_steps
        First steps, on single frames.
    image_batch_size
        Frames per image step.
    clip_steps
        Steps after that; images and clips take turns, ten steps each.
    clip_batch_size
        Clips per clip step.
    clip_frames
        Frames of such a clip.
    long_steps
        The last of the clip steps, on long clips.
    long_batch_size
        Long clips per step, also for the decoder alone.
    long_frames
        Frames of a long clip.
    decoder_steps
        Steps of the decoder alone.
    rate
        Highest learning rate.
    square_weight
        Weight of the squared error.
    edge_weight
        Weight of the error of differences of neighboring pixels.
    kl_weight
        Weight of the KL divergence.
    anchor_weight
        Weight of the squared distance of the latents to those of the initial encoder.
    seed
        Seed of weights and batches.
    start
        Shape of the VAE of a world to start from. None: by the sizes above.
    """

    width: int = 16
    residual_blocks: int = 1
    image_steps: int = 2700
    image_batch_size: int = 16
    clip_steps: int = 4000
    clip_batch_size: int = 3
    clip_frames: int = 9
    long_steps: int = 1600
    long_batch_size: int = 2
    long_frames: int = 17
    decoder_steps: int = 2000
    rate: float = 1e-3
    square_weight: float = 5.0
    edge_weight: float = 0.5
    kl_weight: float = 1e-3
    anchor_weight: float = 0.0
    seed: int = 0
    start: VAESpec | None = None

    @property
    def spec(self) -> VAESpec:
        """Shape of the networks."""
        if self.start is not None:
            return self.start
        return VAESpec(width=self.width, residual_blocks=self.residual_blocks)


class VAE(nn.Module):
    """Encoder and decoder, on latents without the statistics of the released models."""

    def __init__(self, spec: VAESpec) -> None:
        super().__init__()
        plain = replace(spec, mean=(0.0,) * spec.latent_channels, std=(1.0,) * spec.latent_channels)
        self.encoder, self.decoder = VAEEncoder(plain), VAEDecoder(plain)
        for layer in self.modules():
            if isinstance(layer, CausalConv):
                init_as_image_model(layer)

    def forward(self, pixels: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruct pixels [B, 3, N, H, W].

        Returns
        -------
        The reconstruction, the mean latents, the KL divergence per latent.
        """
        mean, log_variance = self.encoder.moments(pixels)
        log_variance = log_variance.clamp(-20, 5)
        noise = torch.randn(mean.shape, generator=random).to(mean.device)
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        return self.decoder(mean + (0.5 * log_variance).exp() * noise), mean, kl


def init_as_image_model(layer: CausalConv) -> None:
    """Set past taps to zero; let temporal resampling drop or repeat frames."""
    present = layer.in_channels // 3
    with torch.no_grad():
        layer.weight[:, :-present] = 0
        layer.weight[:, -present:] *= math.sqrt(3)
        if isinstance(layer, TemporalDownsample | TemporalUpsample):
            assert layer.bias is not None
            copies = layer.out_channels // present
            layer.weight[:, -present:, 0, 0] = torch.eye(present).repeat(copies, 1)
            layer.bias.zero_()


@torch.no_grad()
def rescale_latents(vae: VAE, shift: Tensor, scale: Tensor) -> None:
    """Redefine the latents exactly, per channel: new = (old - shift) / scale.

    Both are folded into the convolutions next to the latents; reconstructions stay the same.
    """
    encoder, decoder = vae.encoder.conv1, vae.decoder.conv2
    channels = len(shift)
    assert encoder.bias is not None
    assert decoder.bias is not None
    encoder.weight[:channels] /= scale.view(-1, 1, 1, 1)
    encoder.bias[:channels] = (encoder.bias[:channels] - shift) / scale
    decoder.bias += (decoder.weight[:, :, 0, 0] * shift).sum(1)
    decoder.weight *= scale.view(1, -1, 1, 1)


@torch.no_grad()
def normalize_latents(vae: VAE, frames: Tensor) -> None:
    """Give the latents of clips zero mean and unit variance.

    Parameters
    ----------
    vae
        Its latents are redefined.
    frames
        All clips, uint8 [E, N, H, W, 3]. At most `NORMALIZED_CLIPS` are encoded, evenly spaced, so
        that each part of the data counts and the time does not grow with it.
    """
    chosen = torch.linspace(0, len(frames) - 1, min(len(frames), NORMALIZED_CLIPS)).round().long()
    latents = torch.cat([vae.encoder(to_pixels(frames[index][None])) for index in chosen])
    rescale_latents(vae, latents.mean((0, 2, 3, 4)), latents.std((0, 2, 3, 4)))


def train_vae(
    dataset: EpisodeDataset,
    recipe: VAERecipe,
    folder: Path,
    vae: VAE,
    seconds: float | None = None,
) -> VAE:
    """Train encoder and decoder together; resumes from `folder`, stops after so many seconds.

    With an `anchor_weight` the latents stay near those of the encoder that `vae` came with, so
    that a transformer trained on those remains useful.

    Returns
    -------
    The same `vae`, with the averaged weights.
    """
    anchor = deepcopy(vae.encoder).requires_grad_(False)
    steps = recipe.image_steps + recipe.clip_steps
    schedule = CosineSchedule(steps, recipe.rate, seconds=seconds)
    trainer = Trainer(folder, vae, schedule)
    trainer.resume()
    device = vae.decoder.conv2.weight.device
    for step in trainer.steps("VAE"):
        random = generator(recipe.seed, step)
        pixels = dataset.clips(*_batch_shape(recipe, trainer.position, step), random).to(device)
        with autocast(device):
            rebuilt, latents, kl = vae(pixels, random)
            loss = _reconstruction_loss(rebuilt, pixels, recipe) + recipe.kl_weight * kl
            if recipe.anchor_weight:
                distance = (latents - anchor(pixels)).square().mean()
                loss = loss + recipe.anchor_weight * distance
        trainer.update(loss)
        if step % LOG_EVERY == 0:
            kind = "clip" if pixels.shape[2] > 1 else "picture"
            trainer.log(kl=kl.item(), **{f"{kind}_psnr": _psnr(rebuilt, pixels)})
    trainer.use_average()
    return vae.eval()


def train_decoder(
    dataset: EpisodeDataset,
    recipe: VAERecipe,
    folder: Path,
    vae: VAE,
    seconds: float | None = None,
) -> None:
    """Train the decoder alone, as `train_vae`; leaves the averaged weights in `vae`."""
    schedule = CosineSchedule(recipe.decoder_steps, recipe.rate, seconds=seconds)
    trainer = Trainer(folder, vae.decoder, schedule, DECODER_EMA_DECAY)
    trainer.resume()
    device = vae.decoder.conv2.weight.device
    for step in trainer.steps("decoder alone"):
        random = generator(recipe.seed + 1, step)
        pixels = dataset.clips(recipe.long_batch_size, recipe.long_frames, random).to(device)
        with autocast(device):
            with torch.no_grad():
                latents = vae.encoder(pixels)
            rebuilt = vae.decoder(latents)
            loss = _reconstruction_loss(rebuilt, pixels, recipe)
        trainer.update(loss)
        if step % LOG_EVERY == 0:
            trainer.log(clip_psnr=_psnr(rebuilt, pixels))
    trainer.use_average()


def _batch_shape(recipe: VAERecipe, position: int, step: int) -> tuple[int, int]:
    """Return how many clips of how many frames a step takes. An image is a clip of one frame."""
    remaining = recipe.image_steps + recipe.clip_steps - position
    if remaining <= recipe.long_steps:
        return recipe.long_batch_size, recipe.long_frames
    if position < recipe.image_steps or step % 20 < 10:
        return recipe.image_batch_size, 1
    return recipe.clip_batch_size, recipe.clip_frames


def _reconstruction_loss(rebuilt: Tensor, pixels: Tensor, recipe: VAERecipe) -> Tensor:
    error = rebuilt - pixels
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    square = recipe.square_weight * error.square().mean()
    return error.abs().mean() + square + recipe.edge_weight * edges


def _psnr(rebuilt: Tensor, pixels: Tensor) -> float:
    """Compute the PSNR of pixels in [-1, 1]."""
    return psnr((rebuilt.detach() - pixels).square().mean().item(), peak=2.0)
