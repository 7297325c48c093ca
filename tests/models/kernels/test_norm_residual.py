"""The kernels over rows quantize as the plain layers do."""

from __future__ import annotations

import pytest
import torch

import tests.support.interpreted  # noqa: F401  (before anything imports Triton)
from glassworld.models.kernels.norm_residual import FLOAT8, gelu_float8
from glassworld.models.ops.quantized import quantize


@pytest.mark.parametrize("width", [40, 60, 64, 560])
def test_gelu_float8_equals_gelu_then_quantize(width: int) -> None:
    x = torch.randn(3, width, generator=torch.Generator().manual_seed(1))
    gelu = torch.nn.functional.gelu(x, approximate="tanh")
    quantized, expected = gelu_float8(x), quantize(gelu, FLOAT8)
    torch.testing.assert_close(quantized.scales, expected.scales)
    numbers = expected.rows.float()
    # The interpreter loses the carry where rounding reaches the next power of two.
    rounded_up = numbers.abs().log2() % 1 == 0
    assert rounded_up.float().mean() < 0.2
    assert torch.equal(quantized.rows.float()[~rounded_up], numbers[~rounded_up])
