"""The tiny decoder: streamed as at once, and as its released sequence of layers says."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from glassworld.models.vae.causal_conv import FeatureCache
from glassworld.models.vae.tiny_decoder import TinyDecoder
from tests.support import tiny

WIDTHS = (8, 6, 5, 4)


def decoder() -> TinyDecoder:
    network = TinyDecoder(latent_channels=16, widths=WIDTHS)
    tiny.fill(network, 2)
    return network


def latents(frames: int) -> Tensor:
    return torch.randn(1, 16, frames, 4, 6, generator=torch.Generator().manual_seed(4))


def convolved(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    weight = weights[f"decoder.{name}.weight"]
    return F.conv2d(x, weight, weights.get(f"decoder.{name}.bias"), padding=weight.shape[-1] // 2)


def in_the_released_order(x: Tensor, weights: dict[str, Tensor]) -> Tensor:
    """The whole clip at once, layer by layer: `x` `[t, c, h, w]`, frames first."""
    x = F.relu(convolved(3 * torch.tanh(x / 3), weights, "1"))
    for start, growth in ((3, 1), (9, 2), (15, 2)):
        for block in range(start, start + 3):
            y = torch.cat([x, torch.cat([torch.zeros_like(x[:1]), x[:-1]])], 1)
            y = F.relu(convolved(y, weights, f"{block}.conv.0"))
            y = F.relu(convolved(y, weights, f"{block}.conv.2"))
            x = F.relu(convolved(y, weights, f"{block}.conv.4") + x)
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        x = convolved(x, weights, f"{start + 4}.conv")
        x = x.reshape(-1, x.shape[1] // growth, *x.shape[2:])
        x = convolved(x, weights, str(start + 5))
    return convolved(F.relu(x), weights, "22")[3:].clamp(0, 1)


def test_streaming_is_the_released_sequence() -> None:
    network, given = decoder(), latents(5)
    with torch.inference_mode():
        expected = in_the_released_order(given[0].transpose(0, 1), network.state_dict())
        memory = FeatureCache()
        chunks = [
            *network.stream(given[:, :, :2], memory),
            *network.stream(given[:, :, 2:], memory),
        ]
    made = torch.cat(chunks, 1)[0]
    assert made.shape == (17, 32, 48, 3)
    assert made.float().std() > 10
    difference = made.permute(0, 3, 1, 2).float() - 255 * expected
    assert np.abs(difference.numpy() + 0.5).max() <= 0.51  # truncated


def test_sessions_side_by_side_are_decoded_as_alone() -> None:
    network, given = decoder(), torch.cat([latents(2), -latents(2)])
    with torch.inference_mode():
        both = torch.cat(list(network.stream(given, FeatureCache())), 1)
        alone = [
            torch.cat(list(network.stream(each[None], FeatureCache())), 1)[0] for each in given
        ]
    assert (both.int() - torch.stack(alone).int()).abs().max() <= 1


def test_the_released_size() -> None:
    with torch.device("meta"):
        network = TinyDecoder()
    shapes = {name: list(weight.shape) for name, weight in network.state_dict().items()}
    assert shapes["decoder.1.weight"] == [256, 16, 3, 3]
    assert shapes["decoder.3.conv.0.weight"] == [256, 512, 3, 3]
    assert shapes["decoder.7.conv.weight"] == [256, 256, 1, 1]
    assert shapes["decoder.8.weight"] == [128, 256, 3, 3]
    assert shapes["decoder.13.conv.weight"] == [256, 128, 1, 1]
    assert shapes["decoder.22.weight"] == [3, 64, 3, 3]
    assert len(shapes) == 2 + 9 * 6 + 3 + 3 + 2
