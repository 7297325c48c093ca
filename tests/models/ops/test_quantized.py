"""Quantized layers are close to the exact ones, as a whole and in part."""

from __future__ import annotations

import pytest
import torch

from glassworld.models.ops.linear import PackedLinear
from glassworld.models.ops.quantized import (
    QUANTIZED_LAYERS,
    QuantizedLinear,
    quantize,
    quantize_layers,
)
from tests.support import tiny


@pytest.mark.parametrize(("dtype", "step"), [(torch.int8, 1 / 127), (torch.float8_e4m3fn, 1 / 8)])
def test_quantize_rounds_each_row_within_half_a_step(dtype: torch.dtype, step: float) -> None:
    x = (
        torch.randn(5, 64, generator=torch.Generator().manual_seed(1))
        * torch.logspace(-3, 3, 5)[:, None]
    )
    eight_bit, scale = quantize(x, dtype)
    largest = x.abs().amax(-1, keepdim=True)
    assert ((eight_bit.float() * scale - x).abs() <= 0.501 * step * largest).all()
    assert torch.isfinite(quantize(torch.zeros(2, 16), dtype)[0].float()).all()


@pytest.mark.parametrize(("dtype", "most"), [(torch.int8, 0.02), (torch.float8_e4m3fn, 0.06)])
def test_quantized_linear_is_close_to_the_exact_layer(dtype: torch.dtype, most: float) -> None:
    torch.manual_seed(0)
    linear, x = PackedLinear(64, 48), torch.randn(2, 20, 64)
    layer = QuantizedLinear(linear, dtype)
    with torch.inference_mode():
        exact, near = linear(x), layer(x)
        assert near.shape == exact.shape
        assert (near - exact).square().mean().sqrt() < most * exact.std()
        torch.testing.assert_close(layer(x, first=16), near[..., 16:])


def test_quantized_linear_keeps_gelu() -> None:
    torch.manual_seed(0)
    exact, x = PackedLinear(64, 96, gelu=True), torch.randn(20, 64)
    with torch.inference_mode():
        near, expected = QuantizedLinear(exact, torch.int8)(x), exact(x)
        assert (near - expected).square().mean().sqrt() < 0.05 * expected.std()


def test_quantize_layers_replaces_wide_layers_of_aligned_widths() -> None:
    layers = tiny.dit().blocks
    layers.set_submodule("1.ffn.2", PackedLinear(48, 24))
    quantize_layers(layers, torch.int8)
    changed = [name for name, each in layers.named_modules() if isinstance(each, QuantizedLinear)]
    wide = [f"{index}.{path}" for index in range(3) for path in QUANTIZED_LAYERS]
    assert sorted(changed) == sorted(set(wide) - {"1.ffn.2"})
