"""Measure the implementations of attention and convolutions here, and take the fastest."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from glassworld.engine.networks import Networks
from glassworld.engine.runtime.device import synchronize
from glassworld.models.ops.attention import attention, pointwise_attention
from glassworld.models.transformer.action import ActionModule
from glassworld.models.vae.blocks import Upsample
from glassworld.models.vae.causal_conv import TAPS, CausalConv
from glassworld.models.vae.decoder import VAEDecoder
from glassworld.specs import WorldSpec

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


Times = dict[str, float]
"""Milliseconds, by implementation."""


class AttentionChoice(NamedTuple):
    """The backends of self-attention, the fastest first, and all that was measured."""

    backends: tuple[SDPBackend, ...]
    measured: dict[str, Times]  # of "self" and "mouse" attention


def choose_attention(spec: WorldSpec, networks: Networks) -> AttentionChoice:
    """Choose the fastest self-attention, and have the mouse's many short ones use the fastest."""
    measured = {"self": backend_times(*self_attention_inputs(spec, networks))}
    order = sorted(measured["self"], key=measured["self"].__getitem__)
    backends = tuple(SDPBackend.__members__[name] for name in order)
    if spec.dit.action.mouse_dim:
        with sdpa_kernel(list(backends), set_priority=True):
            measured["mouse"] = mouse_times(spec, networks)
        by_sums = measured["mouse"]["sums"] < measured["mouse"]["products"]
        for module in networks.dit.modules():
            if isinstance(module, ActionModule):
                module.mouse_attention = pointwise_attention if by_sums else attention
    return AttentionChoice(backends, measured)


@torch.inference_mode()
def backend_times(q: Tensor, k: Tensor, v: Tensor) -> Times:
    """Time one attention by each of torch's backends that works here."""
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
def mouse_times(spec: WorldSpec, networks: Networks) -> Times:
    """Time one mouse attention by matmuls ("products") and by sums."""
    heads = mouse_attention_inputs(spec, networks)
    implementations = {"products": attention, "sums": pointwise_attention}
    return {
        name: milliseconds(partial(attend, *heads), networks.device)
        for name, attend in implementations.items()
    }


def milliseconds(call: Callable[[], object], device: torch.device) -> float:
    """Return the median time of a few calls, each until the device is done."""
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        call()
        synchronize(device)
        times.append(1e3 * (time.perf_counter() - began))
    return statistics.median(times)


def self_attention_inputs(spec: WorldSpec, networks: Networks) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values of a self-attention whose window is full."""
    dit = spec.dit
    keys = (1, dit.num_heads, dit.window * spec.tokens_per_frame, dit.head_dim)
    queries = (1, dit.num_heads, spec.frames_per_block * spec.tokens_per_frame, dit.head_dim)
    return _random(networks, queries), _random(networks, keys), _random(networks, keys)


def mouse_attention_inputs(spec: WorldSpec, networks: Networks) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values of a mouse attention whose window is full."""
    action = spec.dit.action
    heads = (spec.tokens_per_frame, action.heads)
    width = action.mouse_width // action.heads
    keys = (*heads, spec.dit.window, width)
    return (
        _random(networks, (*heads, spec.frames_per_block, width)),
        _random(networks, keys),
        _random(networks, keys),
    )


def _random(networks: Networks, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, device=networks.device).to(networks.dtype)


ConvolutionTimes = dict[tuple[int, ...], Times]


def choose_convolutions(spec: WorldSpec, networks: Networks) -> ConvolutionTimes:
    """Have each of the decoder's causal convolutions run over folded taps, or by `conv3d`.

    Returns the times measured, by channels in and out, frames, height and width. A tiny decoder
    is left as it is.
    """
    decoder, measured = networks.decoder, ConvolutionTimes()
    if not isinstance(decoder, VAEDecoder):
        return measured
    for layer, x in convolution_inputs(spec, decoder):
        shape = (x.shape[-1], layer.out_channels, x.shape[1] - TAPS + 1, *x.shape[2:4])
        if shape not in measured:
            measured[shape] = convolution_times(layer, x, networks.device)
        layer.uses_conv3d = measured[shape]["conv3d"] < measured[shape]["folded"]
    return measured


@torch.inference_mode()
def convolution_inputs(spec: WorldSpec, decoder: VAEDecoder) -> list[tuple[CausalConv, Tensor]]:
    """Return the causal convolutions over frames, each with an input as in a steady block."""
    weight = decoder.conv2.weight
    frames, rows, columns = 1, *spec.latent_size
    inputs = []
    for layer in decoder.modules():
        if isinstance(layer, Upsample):
            frames *= 2 if layer.time_conv is not None else 1
            rows, columns = 2 * rows, 2 * columns
        elif isinstance(layer, CausalConv) and layer.kernel_size == (3, 3):
            shape = (1, frames + TAPS - 1, rows, columns, layer.in_channels // TAPS)
            inputs.append((layer, torch.randn(shape).to(weight)))
    return inputs


@torch.inference_mode()
def convolution_times(layer: CausalConv, x: Tensor, device: torch.device) -> Times:
    """Time a causal convolution of `x` by each implementation.

    Where a kernel packs its input, only the convolution counts.
    """
    frames, before = x.shape[1] - TAPS + 1, layer.uses_conv3d
    times = {}
    for name, direct in (("folded", False), ("conv3d", True)):
        layer.uses_conv3d = direct
        call = partial(layer.convolve, x, frames)
        if layer.epilogue_fused:
            call = partial(layer.convolve_stacked, layer.stack_taps(x, frames), frames, None)
        call()
        times[name] = milliseconds(call, device)
    layer.uses_conv3d = before
    return times
