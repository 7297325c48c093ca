"""The ways to do one piece of a world: attention, the decoder's convolutions, all of decoding."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from glassworld.bench.gpu.context import BenchContext, Figures
from glassworld.bench.peak_rates import median_seconds
from glassworld.engine.acceleration.autotune import choose_attention, choose_convolutions
from glassworld.engine.acceleration.parts import accelerate
from glassworld.engine.acceleration.tiny_decoder import with_tiny_decoder
from glassworld.engine.world import World
from glassworld.models.vae.blocks import Upsample
from glassworld.models.vae.causal_conv import FeatureCache


def attention_ways(rig: BenchContext) -> Figures:
    """Milliseconds of each way to attend at this world's sizes."""
    return {**choose_attention(rig.make())}


def decoder_ways(rig: BenchContext) -> Figures:
    """A block's decoding in milliseconds: as it is, by our kernels, and by the tiny decoder."""
    world = rig.make()
    tiny = with_tiny_decoder(world, None)
    plain = _decoded(world)
    accelerate(world, ["kernels"])
    faster = _decoded(world)
    difference = (plain[1].int() - faster[1].int()).abs().max()
    return {
        "plain_ms": plain[0],
        "kernels_ms": faster[0],
        "kernels_difference_of_255": int(difference),
        "tiny_ms": _decoded(tiny)[0],
    }


@torch.inference_mode()
def _decoded(world: World) -> tuple[float, Tensor]:
    """Milliseconds of a steady block's decoding, and the pictures of a fixed one."""
    spec, decoder = world.spec, world.pipeline.decoder
    draw = torch.Generator().manual_seed(1)
    shape = (1, spec.vae.latent_channels, spec.frames_per_block, *spec.latent_size)
    latents = torch.randn(shape, generator=draw).to(next(decoder.parameters()))
    memory = FeatureCache()

    def decode() -> Tensor:
        return torch.cat(list(decoder.stream(latents, memory)), 1)

    decode()
    pictures = decode().cpu()
    return 1e3 * median_seconds(decode, world.device), pictures


@torch.inference_mode()
def convolution_ways(rig: BenchContext) -> Figures:
    """Each kind of the decoder's convolutions, done in the ways there are; milliseconds."""
    world = rig.make()
    found: Figures = {
        "causal": [{"shape": shape, **ways} for shape, ways in choose_convolutions(world).items()]
    }
    frames, rows, columns = 1, *world.spec.latent_size
    decoder = world.pipeline.decoder
    for name, layer in decoder.named_modules():
        if isinstance(layer, Upsample):
            frames *= 2 if layer.time_conv is not None else 1
            x = layer.conv.weight.new_ones(1, frames, rows, columns, layer.conv.in_channels)
            found[name] = _upsampling_ways(layer, x, world.device)
            rows, columns = 2 * rows, 2 * columns
    return found


def _upsampling_ways(layer: Upsample, x: Tensor, device: torch.device) -> Figures:
    pictures = x.flatten(0, 1).permute(0, 3, 1, 2)
    bare = Upsample(layer.conv.in_channels, temporal=False)
    bare.conv = layer.conv

    def repeating() -> Tensor:
        large = F.interpolate(pictures, scale_factor=2, mode="nearest")
        return F.conv2d(large, layer.conv.weight, layer.conv.bias, padding=1)

    return {
        "shape": [layer.conv.in_channels, layer.conv.out_channels, *x.shape[1:4]],
        "four_small_ms": 1e3 * median_seconds(lambda: bare(x, None), device),
        "repeating_ms": 1e3 * median_seconds(repeating, device),
    }
