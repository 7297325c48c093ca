"""Train the VAE: pictures first, then clips.

From scratch on clips a small Wan VAE sits on a plateau for long; on pictures it leaves it at
once. A picture uses the present tap of every causal convolution only, so the past taps start at
zero and the temporal resampling starts as "repeat": after the pictures the network already
shows clips, each four frames as one, and then learns what moves.

The loss is L1 on pixels (sharper than L2), L2 on them (so that the errors that stand out weigh
more), L1 on the differences of neighbouring pixels (edges), and a small KL term that keeps the
latents smooth enough to be predicted with an error.

Last the decoder learns alone, on long clips: what it has to learn (what moves where between the
latent frames) takes longer than what the encoder has to, a step costs less, and latents that
were encoded before stay what they are.
"""

import math
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from glassworld.models.vae.blocks import TemporalDownsample, TemporalUpsample
from glassworld.models.vae.causal_conv import CausalConv
from glassworld.models.vae.decoder import VAEDecoder
from glassworld.models.vae.encoder import VAEEncoder
from glassworld.specs import VAESpec
from glassworld.training.data.dataset import Play, to_pixels
from glassworld.training.trainer import Run, Schedule, autocast, generator

DECODER_DECAY = 0.997


@dataclass(frozen=True)
class VAERecipe:
    """How the VAE is trained."""

    width: int = 16
    residual_blocks: int = 1
    picture_steps: int = 2700
    pictures: int = 16
    clip_steps: int = 4000
    clips: int = 3
    clip_frames: int = 9
    long_steps: int = 1600
    long_clips: int = 2
    long_frames: int = 17
    decoder_steps: int = 2000
    rate: float = 1e-3
    square_weight: float = 5.0
    edge_weight: float = 0.5
    kl_weight: float = 1e-3
    stay_weight: float = 0.0
    seed: int = 0

    @property
    def spec(self) -> VAESpec:
        return VAESpec(width=self.width, residual_blocks=self.residual_blocks)


class VAE(nn.Module):
    """Encoder and decoder, on latents without the released models' statistics."""

    def __init__(self, spec: VAESpec) -> None:
        super().__init__()
        plain = replace(spec, mean=(0.0,) * spec.latent_channels, std=(1.0,) * spec.latent_channels)
        self.encoder, self.decoder = VAEEncoder(plain), VAEDecoder(plain)
        for layer in self.modules():
            if isinstance(layer, CausalConv):
                start_from_pictures(layer)

    def forward(self, pixels: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Pixels [B, 3, N, H, W] to their reconstruction, latents and KL divergence per latent."""
        mean, log_variance = self.encoder.moments(pixels)
        log_variance = log_variance.clamp(-20, 5)
        noise = torch.randn(mean.shape, generator=random).to(mean.device)
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        return self.decoder(mean + (0.5 * log_variance).exp() * noise), mean, kl


def start_from_pictures(layer: CausalConv) -> None:
    """Past taps at zero; resampling in time starts by dropping or repeating frames."""
    present = layer.in_channels // 3
    with torch.no_grad():
        layer.weight[:, :-present] = 0
        layer.weight[:, -present:] *= math.sqrt(3)
        if isinstance(layer, TemporalDownsample | TemporalUpsample):
            assert layer.bias is not None
            copies = layer.out_channels // present
            layer.weight[:, -present:, 0, 0] = torch.eye(present).repeat(copies, 1)
            layer.bias.zero_()


def train_vae(play: Play, recipe: VAERecipe, folder: Path, vae: VAE) -> VAE:
    """Train, or go on training, in `folder`. Returns the averaged model.

    With a `stay_weight` the latents stay near those of the encoder that `vae` came with: what a
    transformer knows of them keeps most of its worth.
    """
    known = deepcopy(vae.encoder).requires_grad_(False)
    schedule = Schedule(recipe.picture_steps + recipe.clip_steps, recipe.rate)
    run = Run(folder, vae, schedule)
    run.resume()
    device = vae.decoder.conv2.weight.device
    for step in run.steps("VAE"):
        random = generator(recipe.seed, step)
        pixels = play.clips(*_batch(recipe, step), random).to(device)
        with autocast(device):
            rebuilt, latents, kl = vae(pixels, random)
            loss = _error(rebuilt, pixels, recipe) + recipe.kl_weight * kl
            if recipe.stay_weight:
                moved = (latents - known(pixels)).square().mean()
                loss = loss + recipe.stay_weight * moved
        run.learn(loss)
        if step % 10 == 0:
            kind = "clip" if pixels.shape[2] > 1 else "picture"
            run.note(kl=kl.item(), **{f"{kind}_psnr": psnr(rebuilt.detach(), pixels)})
    vae.load_state_dict(run.average)
    return vae.eval()


def train_decoder(play: Play, recipe: VAERecipe, folder: Path, vae: VAE) -> None:
    """Train, or go on training, the decoder alone; leaves the averaged weights in `vae`."""
    run = Run(folder, vae.decoder, Schedule(recipe.decoder_steps, recipe.rate), DECODER_DECAY)
    run.resume()
    device = vae.decoder.conv2.weight.device
    for step in run.steps("decoder alone"):
        random = generator(recipe.seed + 1, step)
        pixels = play.clips(recipe.long_clips, recipe.long_frames, random).to(device)
        with autocast(device):
            with torch.no_grad():
                latents = vae.encoder(pixels)
            rebuilt = vae.decoder(latents)
            loss = _error(rebuilt, pixels, recipe)
        run.learn(loss)
        if step % 10 == 0:
            run.note(clip_psnr=psnr(rebuilt.detach(), pixels))
    vae.decoder.load_state_dict(run.average)


def _batch(recipe: VAERecipe, step: int) -> tuple[int, int]:
    """How many stretches of how many frames: pictures, pictures and clips in turn, long clips."""
    left = recipe.picture_steps + recipe.clip_steps - step
    if left <= recipe.long_steps:
        return recipe.long_clips, recipe.long_frames
    if step < recipe.picture_steps or step % 20 < 10:
        return recipe.pictures, 1
    return recipe.clips, recipe.clip_frames


def _error(rebuilt: Tensor, pixels: Tensor, recipe: VAERecipe) -> Tensor:
    error = rebuilt - pixels
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    square = recipe.square_weight * error.square().mean()
    return error.abs().mean() + square + recipe.edge_weight * edges


def psnr(a: Tensor, b: Tensor) -> float:
    """Peak signal to noise in decibels, of pixels in [-1, 1]."""
    return float(10 * torch.log10(4 / (a - b).square().mean()))


@torch.no_grad()
def reconstruction_psnr(vae: VAE, play: Play, episodes: int = 16, frames: int = 61) -> float:
    """PSNR of held-out clips through the encoder's mean and the decoder, clip by clip."""
    values = []
    for index in range(min(episodes, len(play))):
        pixels = to_pixels(play.frames[index : index + 1, :frames])
        values.append(psnr(vae.decoder(vae.encoder(pixels)), pixels))
    return sum(values) / len(values)
