"""Layers in 8 bits: near the exact ones, in part as in whole."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from glassworld.models.dense import Dense, feed_forward
from glassworld.models.quantised import QuantisedLinear, quantise, quantise_layers


@pytest.mark.parametrize(("dtype", "step"), [(torch.int8, 1 / 127), (torch.float8_e4m3fn, 1 / 8)])
def test_rows_are_within_half_a_step(dtype: torch.dtype, step: float) -> None:
    x = (
        torch.randn(5, 64, generator=torch.Generator().manual_seed(1))
        * torch.logspace(-3, 3, 5)[:, None]
    )
    eight_bit, scale = quantise(x, dtype)
    largest = x.abs().amax(-1, keepdim=True)
    assert ((eight_bit.float() * scale - x).abs() <= 0.501 * step * largest).all()
    assert torch.isfinite(quantise(torch.zeros(2, 16), dtype)[0].float()).all()


@pytest.mark.parametrize(("dtype", "most"), [(torch.int8, 0.02), (torch.float8_e4m3fn, 0.06)])
def test_a_layer_is_near_the_exact_one(dtype: torch.dtype, most: float) -> None:
    torch.manual_seed(0)
    linear, x = Dense(64, 48), torch.randn(2, 20, 64)
    layer = QuantisedLinear(linear, dtype)
    with torch.inference_mode():
        exact, near = linear(x), layer(x)
        assert near.shape == exact.shape
        assert (near - exact).square().mean().sqrt() < most * exact.std()
        torch.testing.assert_close(layer(x, first=16), near[..., 16:])


def test_the_activation_stays() -> None:
    torch.manual_seed(0)
    exact, x = nn.Sequential(*feed_forward(64, 96, 64)), torch.randn(20, 64)
    with torch.inference_mode():
        expected = exact(x)
        quantise_layers(exact, torch.int8)
        assert (exact(x) - expected).square().mean().sqrt() < 0.05 * expected.std()


def test_layers_of_a_few_rows_and_of_odd_widths_are_spared() -> None:
    network = nn.ModuleDict(
        {
            "ffn": nn.Sequential(*feed_forward(32, 64, 32)),
            "odd": Dense(24, 32),
            "keyboard_embed": nn.Sequential(nn.Linear(32, 32)),
            "keyboard_attn_kv": nn.Linear(32, 32),
        }
    )
    quantise_layers(network, torch.int8)
    changed = [name for name, each in network.named_modules() if isinstance(each, QuantisedLinear)]
    assert changed == ["ffn.0", "ffn.2"]
