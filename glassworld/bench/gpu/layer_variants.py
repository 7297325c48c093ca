"""Variants of one layer: attention, the decoder's convolutions, and decoding as a whole."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from glassworld.bench.gpu.context import BenchContext
from glassworld.bench.peak_rates import median_seconds
from glassworld.bench.section_runner import Figures
from glassworld.engine.acceleration.autotune import choose_attention, choose_convolutions
from glassworld.engine.acceleration.parts import accelerate
from glassworld.engine.checkpoint.tiny_decoder import with_tiny_decoder
from glassworld.engine.world import World
from glassworld.models.vae.blocks import Upsample
from glassworld.models.vae.causal_conv import FeatureCache


def compare_attention(context: BenchContext) -> Figures:
    """Measure the milliseconds of each attention backend at this world's sizes."""
    world = context.build_world()
    return {**choose_attention(world.spec, world.networks).measured}


def compare_decoders(context: BenchContext) -> Figures:
    """Measure the milliseconds to decode a block: plain, with our kernels, by the tiny decoder."""
    world = context.build_world()
    tiny = with_tiny_decoder(world, None)
    plain_ms, plain_frames = _decode(world)
    kernels_ms, kernels_frames = _decode(accelerate(world, ["kernels"]))
    difference = (plain_frames.int() - kernels_frames.int()).abs().max()
    return {
        "plain_ms": plain_ms,
        "kernels_ms": kernels_ms,
        "kernels_difference_of_255": int(difference),
        "tiny_ms": _decode(tiny)[0],
    }


@torch.inference_mode()
def _decode(world: World) -> tuple[float, Tensor]:
    """Return the milliseconds to decode a steady block, and the frames of a fixed one."""
    spec, decoder = world.spec, world.networks.decoder
    generator = torch.Generator().manual_seed(1)
    shape = (1, spec.vae.latent_channels, spec.frames_per_block, *spec.latent_size)
    latents = torch.randn(shape, generator=generator).to(next(decoder.parameters()))
    memory = FeatureCache()

    def decode() -> Tensor:
        return torch.cat(list(decoder.stream(latents, memory)), 1)

    decode()
    frames = decode().cpu()
    return 1e3 * median_seconds(decode, world.device), frames


@torch.inference_mode()
def compare_convolutions(context: BenchContext) -> Figures:
    """Measure the milliseconds of each variant of each kind of convolution in the decoder."""
    world = context.build_world()
    causal = choose_convolutions(world.spec, world.networks)
    figures: Figures = {"causal": [{"shape": shape, **times} for shape, times in causal.items()]}
    frames, rows, columns = 1, *world.spec.latent_size
    decoder = world.networks.decoder
    for name, layer in decoder.named_modules():
        if isinstance(layer, Upsample):
            frames *= 2 if layer.time_conv is not None else 1
            x = layer.conv.weight.new_ones(1, frames, rows, columns, layer.conv.in_channels)
            figures[name] = _compare_upsampling(layer, x, world.device)
            rows, columns = 2 * rows, 2 * columns
    return figures


def _compare_upsampling(layer: Upsample, x: Tensor, device: torch.device) -> Figures:
    images = x.flatten(0, 1).permute(0, 3, 1, 2)
    spatial = Upsample(layer.conv.in_channels, temporal=False)
    spatial.conv = layer.conv

    def repeat_pixels() -> Tensor:
        large = F.interpolate(images, scale_factor=2, mode="nearest")
        return F.conv2d(large, layer.conv.weight, layer.conv.bias, padding=1)

    return {
        "shape": [layer.conv.in_channels, layer.conv.out_channels, *x.shape[1:4]],
        "four_small_ms": 1e3 * median_seconds(lambda: spatial(x, None), device),
        "repeating_ms": 1e3 * median_seconds(repeat_pixels, device),
    }
