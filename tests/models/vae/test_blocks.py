"""The layers of the VAE."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from glassworld.models.vae.blocks import Upsample
from tests.support import tiny


def test_upsample_equals_nearest_upsampling_then_convolution() -> None:
    layer = Upsample(8, temporal=False)
    tiny.fill(layer, 3)
    x = torch.randn(2, 3, 5, 6, 8, generator=torch.Generator().manual_seed(1))
    doubled = x.repeat_interleave(2, 2).repeat_interleave(2, 3).flatten(0, 1)
    expected = F.conv2d(doubled.permute(0, 3, 1, 2), layer.conv.weight, layer.conv.bias, padding=1)
    with torch.inference_mode():
        torch.testing.assert_close(
            layer(x, None).flatten(0, 1).permute(0, 3, 1, 2), expected, atol=1e-5, rtol=1e-4
        )
