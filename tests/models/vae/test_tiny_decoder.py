"""The tiny decoder streams what the released sequence of layers decodes at once."""

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


def conv2d(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    weight = weights[f"decoder.{name}.weight"]
    return F.conv2d(x, weight, weights.get(f"decoder.{name}.bias"), padding=weight.shape[-1] // 2)


def decode_in_released_order(x: Tensor, weights: dict[str, Tensor]) -> Tensor:
    """Decode the whole clip at once, layer by layer: `x` is `[t, c, h, w]`."""
    x = F.relu(conv2d(3 * torch.tanh(x / 3), weights, "1"))
    for start, growth in ((3, 1), (9, 2), (15, 2)):
        for block in range(start, start + 3):
            y = torch.cat([x, torch.cat([torch.zeros_like(x[:1]), x[:-1]])], 1)
            y = F.relu(conv2d(y, weights, f"{block}.conv.0"))
            y = F.relu(conv2d(y, weights, f"{block}.conv.2"))
            x = F.relu(conv2d(y, weights, f"{block}.conv.4") + x)
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        x = conv2d(x, weights, f"{start + 4}.conv")
        x = x.reshape(-1, x.shape[1] // growth, *x.shape[2:])
        x = conv2d(x, weights, str(start + 5))
    return conv2d(F.relu(x), weights, "22")[3:].clamp(0, 1)


def test_tiny_decoder_streaming_equals_the_released_sequence() -> None:
    network, clip = decoder(), latents(5)
    with torch.inference_mode():
        expected = decode_in_released_order(clip[0].transpose(0, 1), network.state_dict())
        cache = FeatureCache()
        chunks = [
            *network.stream(clip[:, :, :2], cache),
            *network.stream(clip[:, :, 2:], cache),
        ]
    images = torch.cat(chunks, 1)[0]
    assert images.shape == (17, 32, 48, 3)
    assert images.float().std() > 10
    difference = images.permute(0, 3, 1, 2).float() - 255 * expected
    assert np.abs(difference.numpy() + 0.5).max() <= 0.51  # truncated


def test_tiny_decoder_with_two_sessions_equals_each_alone() -> None:
    network, clips = decoder(), torch.cat([latents(2), -latents(2)])
    with torch.inference_mode():
        both = torch.cat(list(network.stream(clips, FeatureCache())), 1)
        alone = [
            torch.cat(list(network.stream(clip[None], FeatureCache())), 1)[0] for clip in clips
        ]
    assert (both.int() - torch.stack(alone).int()).abs().max() <= 1


def test_tiny_decoder_has_the_released_shapes() -> None:
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
