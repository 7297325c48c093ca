"""The fused tiny decoder decodes and caches what the plain one does, by Triton's interpreter."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import tests.support.interpreted  # noqa: F401 (before the kernels)
from glassworld.models.kernels.deferred_sum import materialize
from glassworld.models.kernels.fused_tiny_decoder import (
    TinyConvSum,
    fuse_tiny_decoder,
    pair_with_previous,
)
from glassworld.models.vae.blocks import interleave_phases
from glassworld.models.vae.causal_conv import FeatureCache
from glassworld.models.vae.tiny_decoder import TinyDecoder
from tests.support import tiny

WIDTHS = (8, 6, 5, 4)


def decoder_pair(dtype: torch.dtype = torch.float32) -> tuple[TinyDecoder, TinyDecoder]:
    """Return a plain and a fused decoder of the same weights."""
    plain, fused = (TinyDecoder(latent_channels=16, widths=WIDTHS) for _ in range(2))
    fuse_tiny_decoder(fused)
    for decoder in (plain, fused):
        tiny.fill(decoder, 2)
        decoder.to(dtype)
    assert fused.state_dict().keys() == plain.state_dict().keys()
    return plain, fused


def clip(frames: int) -> Tensor:
    return torch.randn(2, 16, frames, 2, 3, generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def decode(
    decoders: list[TinyDecoder], latents: Tensor, at_once: int = 1
) -> tuple[Tensor, dict[str, Tensor]]:
    """Stream the latent frames, `at_once` at a time, each part through the decoder at its index."""
    cache, pixels = FeatureCache(), []
    for decoder, frames in zip(decoders, latents.split(at_once, 2), strict=True):
        addresses = {name: end.data_ptr() for name, end in cache.frames.items()}
        pixels.append(decoder.decode_frame(decoder.preprocess(frames), cache))
        cache.first = False
        for name, address in addresses.items():
            assert cache.frames[name].data_ptr() == address  # captured graphs go on reading there
    return torch.cat(pixels, 1), cache.frames


@pytest.mark.parametrize("at_once", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_fused_tiny_decoder_equals_plain_decoder(at_once: int) -> None:
    plain, fused = decoder_pair()
    pixels, frames = decode([fused] * (4 // at_once), clip(4), at_once)
    expected, expected_frames = decode([plain] * 4, clip(4))
    torch.testing.assert_close(pixels, expected, atol=1e-5, rtol=1e-5)
    assert frames.keys() == expected_frames.keys()
    for name, end in expected_frames.items():
        torch.testing.assert_close(frames[name], end, atol=1e-5, rtol=1e-5)


def test_fused_tiny_decoder_continues_a_plain_decoders_clip_and_back() -> None:
    plain, fused = decoder_pair()
    expected, _ = decode([plain] * 5, clip(5))
    pixels, _ = decode([plain, plain, fused, plain, fused], clip(5))
    torch.testing.assert_close(pixels, expected, atol=1e-5, rtol=1e-5)


def test_fused_tiny_decoder_in_half_precision_has_the_plain_decoders_error() -> None:
    exact = decode([decoder_pair()[0]] * 3, clip(3))[0]
    plain, fused = (
        decode([decoder] * 3, clip(3).half())[0] for decoder in decoder_pair(torch.float16)
    )
    errors = [(pixels - exact).square().mean().sqrt() for pixels in (fused, plain)]
    # 1.15 where a CPU converts float16 to float32 to convolve, 1.20 where it convolves float16
    assert errors[0] < 1.3 * errors[1]


@pytest.mark.parametrize("frames", [1, 2])
def test_pair_with_previous_puts_the_frame_before_beside_each_frame(frames: int) -> None:
    shape = (2, frames, 13, 15, 12)  # more pixels than a program holds, and part of its channels
    draw = torch.Generator().manual_seed(frames)
    conv, before = torch.randn(2, *shape, generator=draw)
    shortcut = torch.cat([before, torch.full_like(before, torch.nan)], -1)  # half of it is read
    bias = torch.randn(12, generator=draw)
    past = torch.randn(2, 1, *shape[2:], generator=draw)
    conv[0, 0, 0, 0, 0] = torch.nan

    expected = torch.cat([past, F.relu(conv + bias + before)], 1)
    pairs = pair_with_previous(TinyConvSum(conv, bias, shortcut), past)
    torch.testing.assert_close(
        pairs, torch.cat([expected[:, 1:], expected[:, :-1]], -1), equal_nan=True
    )
    torch.testing.assert_close(past, expected[:, -1:], equal_nan=True)


def test_tiny_conv_sum_of_grown_output_orders_frames_and_pixels() -> None:
    conv = torch.randn(2, 3, 4, 6, 4 * 2 * 5, generator=torch.Generator().manual_seed(0))
    frames = interleave_phases(conv, 2 * 5).unflatten(-1, (2, 5)).movedim(-2, 2).flatten(1, 2)
    torch.testing.assert_close(materialize(TinyConvSum(conv, grown=2, relu=False)), frames)
    torch.testing.assert_close(materialize(TinyConvSum(conv, grown=2)), F.relu(frames))
