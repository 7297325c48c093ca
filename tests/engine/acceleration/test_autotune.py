"""Attention and convolutions, chosen by measuring."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from glassworld.engine.acceleration.autotune import (
    choose_attention,
    choose_convolutions,
    convolution_inputs,
)
from glassworld.engine.pipeline import ExecutionPlan
from glassworld.models.ops.attention import attention, pointwise_attention
from glassworld.models.vae.decoder import VAEDecoder
from tests.support import tiny
from tests.support.same_frames import assert_same_frames


def test_conv3d_and_folded_convolutions_are_the_same() -> None:
    direct, folded = tiny.world(), tiny.world()
    decoder = direct.networks.decoder
    assert isinstance(decoder, VAEDecoder)
    layers = [layer for layer, _ in convolution_inputs(direct.spec, decoder)]
    for layer in layers:
        layer.uses_conv3d = True
    assert layers
    assert_same_frames(direct.start(tiny.picture()), folded.start(tiny.picture()), blocks=3)


def test_choose_convolutions_takes_the_faster() -> None:
    world = tiny.world()
    decoder = world.networks.decoder
    assert isinstance(decoder, VAEDecoder)
    measured = choose_convolutions(world.spec, world.networks)
    assert measured
    for layer, x in convolution_inputs(world.spec, decoder):
        times = measured[x.shape[-1], layer.out_channels, x.shape[1] - 2, *x.shape[2:4]]
        assert layer.uses_conv3d == (times["conv3d"] < times["folded"])


def test_choose_attention_measures_and_keeps_the_frames() -> None:
    world, plain = tiny.world(), tiny.world()
    backends, measured = choose_attention(world.spec, world.networks)
    assert {backend.name for backend in backends} == measured["self"].keys()
    world = replace(world, plan=ExecutionPlan(backends))
    assert measured["self"].keys() == {"FLASH_ATTENTION", "MATH"}
    assert measured["mouse"].keys() == {"products", "sums"}
    assert all(ms > 0 for times in measured.values() for ms in times.values())
    assert_same_frames(world.start(tiny.picture()), plain.start(tiny.picture()), 4)


@pytest.mark.parametrize("masked", [False, True])
def test_pointwise_attention_equals_attention(masked: bool) -> None:
    draw = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(5, 2, n, 8, generator=draw) for n in (3, 6, 6))
    mask = torch.tensor([[True] * 4 + [False] * 2]).expand(3, 6) if masked else None
    torch.testing.assert_close(pointwise_attention(q, k, v, mask), attention(q, k, v, mask))
