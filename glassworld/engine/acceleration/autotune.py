"""Where there is more than one way to do the same, measure them here and take the fastest."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from glassworld.engine.runtime.device import synchronize
from glassworld.engine.world import World
from glassworld.models.ops.attention import attention, pointwise_attention
from glassworld.models.transformer.action import ActionModule
from glassworld.models.vae.blocks import Upsample
from glassworld.models.vae.causal_conv import TAPS, CausalConv
from glassworld.models.vae.decoder import VAEDecoder

BACKENDS = {
    "cpu": (SDPBackend.FLASH_ATTENTION, SDPBackend.MATH),
    "cuda": (
        SDPBackend.FLASH_ATTENTION,
        SDPBackend.CUDNN_ATTENTION,
        SDPBackend.EFFICIENT_ATTENTION,
        SDPBackend.MATH,
    ),
}
REPEATS = 10


Ways = dict[str, dict[str, float]]


def choose_attention(world: World) -> Ways:
    """Take the fastest attention for self-attention, and for the mouse's many short ones.

    Returns what was measured: for each of the two, milliseconds of each way that works here.
    """
    measured = {"self": backend_times(*self_attention_inputs(world))}
    order = sorted(measured["self"], key=measured["self"].__getitem__)
    backends = [SDPBackend.__members__[name] for name in order]
    world.pipeline.attention = partial(sdpa_kernel, backends, set_priority=True)
    if world.spec.dit.action.mouse_dim:
        with world.pipeline.attention():
            measured["mouse"] = mouse_times(world)
        sums = measured["mouse"]["sums"] < measured["mouse"]["products"]
        for module in world.networks.dit.modules():
            if isinstance(module, ActionModule):
                module.mouse_attention = pointwise_attention if sums else attention
    return measured


@torch.inference_mode()
def backend_times(q: Tensor, k: Tensor, v: Tensor) -> dict[str, float]:
    """Milliseconds of one attention by each of torch's backends that can do it here."""
    times = {}
    for backend in BACKENDS[q.device.type]:
        with sdpa_kernel(backend), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch says at length why a backend is not for this
            try:
                times[backend.name] = milliseconds(lambda: attention(q, k, v), q.device)
            except RuntimeError:
                continue
    return times


@torch.inference_mode()
def mouse_times(world: World) -> dict[str, float]:
    """Milliseconds of one mouse attention by products of matrices and by sums."""
    heads = mouse_attention_inputs(world)
    ways = {"products": attention, "sums": pointwise_attention}
    return {
        name: milliseconds(partial(attend, *heads), world.device) for name, attend in ways.items()
    }


def milliseconds(call: Callable[[], object], device: torch.device) -> float:
    """The median of a few calls, the device waited for."""
    taken = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        call()
        synchronize(device)
        taken.append(1e3 * (time.perf_counter() - began))
    return statistics.median(taken)


def self_attention_inputs(world: World) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of a self-attention whose window is full."""
    spec, dit = world.spec, world.spec.dit
    keys = (1, dit.num_heads, dit.window * spec.tokens_per_frame, dit.head_dim)
    queries = (1, dit.num_heads, spec.frames_per_block * spec.tokens_per_frame, dit.head_dim)
    return _random(world, queries), _random(world, keys), _random(world, keys)


def mouse_attention_inputs(world: World) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of a mouse attention whose window is full."""
    spec, action = world.spec, world.spec.dit.action
    heads = (spec.tokens_per_frame, action.heads)
    width = action.mouse_width // action.heads
    keys = (*heads, spec.dit.window, width)
    return (
        _random(world, (*heads, spec.frames_per_block, width)),
        _random(world, keys),
        _random(world, keys),
    )


def _random(world: World, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, device=world.device).to(world.dtype)


ConvolutionTimes = dict[tuple[int, ...], dict[str, float]]


def choose_convolutions(world: World) -> ConvolutionTimes:
    """Do each of the decoder's causal convolutions over folded taps, or by `conv3d`.

    Returns what was measured: milliseconds of each way, by channels in and out, frames, height
    and width. A tiny decoder is left as it is.
    """
    decoder, measured = world.pipeline.decoder, ConvolutionTimes()
    if not isinstance(decoder, VAEDecoder):
        return measured
    for layer, x in convolution_inputs(world, decoder):
        shape = (x.shape[-1], layer.out_channels, x.shape[1] - TAPS + 1, *x.shape[2:4])
        if shape not in measured:
            measured[shape] = convolution_times(layer, x, world.device)
        layer.uses_conv3d = measured[shape]["conv3d"] < measured[shape]["folded"]
    return measured


@torch.inference_mode()
def convolution_inputs(world: World, decoder: VAEDecoder) -> list[tuple[CausalConv, Tensor]]:
    """The causal convolutions over pictures, and of what shape a steady block's input is."""
    spec, weight = world.spec, decoder.conv2.weight
    frames, rows, columns = 1, *spec.latent_size
    found = []
    for layer in decoder.modules():
        if isinstance(layer, Upsample):
            frames *= 2 if layer.time_conv is not None else 1
            rows, columns = 2 * rows, 2 * columns
        elif isinstance(layer, CausalConv) and layer.kernel_size == (3, 3):
            shape = (1, frames + TAPS - 1, rows, columns, layer.in_channels // TAPS)
            found.append((layer, torch.randn(shape).to(weight)))
    return found


@torch.inference_mode()
def convolution_times(layer: CausalConv, x: Tensor, device: torch.device) -> dict[str, float]:
    """Milliseconds of a causal convolution of `x` in each way.

    Where a kernel lays out its input, of the convolution alone.
    """
    frames, kept = x.shape[1] - TAPS + 1, layer.uses_conv3d
    times = {}
    for name, direct in (("folded", False), ("conv3d", True)):
        layer.uses_conv3d = direct
        call = partial(layer.convolve, x, frames)
        if layer.epilogue_fused:
            call = partial(layer.convolve_stacked, layer.stack_taps(x, frames), frames, None)
        call()
        times[name] = milliseconds(call, device)
    layer.uses_conv3d = kept
    return times
