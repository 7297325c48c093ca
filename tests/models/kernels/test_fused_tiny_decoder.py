"""The fused tiny decoder shows and remembers what the plain one does, by Triton's interpreter."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import tests.support.interpreted  # noqa: F401 (before the kernels)
from glassworld.models.kernels.fused_tiny_decoder import (
    Convolved,
    beside_the_last,
    finished,
    fuse_tiny_decoder,
)
from glassworld.models.vae.blocks import interleave_phases
from glassworld.models.vae.causal_conv import FeatureCache
from glassworld.models.vae.tiny_decoder import TinyDecoder
from tests.support import tiny

WIDTHS = (8, 6, 5, 4)


def pair(dtype: torch.dtype = torch.float32) -> tuple[TinyDecoder, TinyDecoder]:
    """A plain and a fused decoder of the same weights."""
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
    """The latent frames in a stream, each part of them by the decoder of its place."""
    memory, pixels = FeatureCache(), []
    for decoder, frames in zip(decoders, latents.split(at_once, 2), strict=True):
        places = {name: kept.data_ptr() for name, kept in memory.frames.items()}
        pixels.append(decoder.decode_frame(decoder.preprocess(frames), memory))
        memory.first = False
        for name, place in places.items():
            assert memory.frames[name].data_ptr() == place  # where a graph finds it again
    return torch.cat(pixels, 1), memory.frames


@pytest.mark.parametrize("at_once", [1, 2])
def test_the_fused_decoder_is_the_plain_one(at_once: int) -> None:
    plain, fused = pair()
    pixels, kept = decode([fused] * (4 // at_once), clip(4), at_once)
    expected, kept_plainly = decode([plain] * 4, clip(4))
    torch.testing.assert_close(pixels, expected, atol=1e-5, rtol=1e-5)
    assert kept.keys() == kept_plainly.keys()
    for name, frames in kept_plainly.items():
        torch.testing.assert_close(kept[name], frames, atol=1e-5, rtol=1e-5)


def test_a_clip_goes_on_in_either() -> None:
    plain, fused = pair()
    expected, _ = decode([plain] * 5, clip(5))
    pixels, _ = decode([plain, plain, fused, plain, fused], clip(5))
    torch.testing.assert_close(pixels, expected, atol=1e-5, rtol=1e-5)


def test_halves_are_as_near_as_the_plain_decoder() -> None:
    exact = decode([pair()[0]] * 3, clip(3))[0]
    plain, fused = (decode([each] * 3, clip(3).half())[0] for each in pair(torch.float16))
    away = [(pixels - exact).square().mean().sqrt() for pixels in (fused, plain)]
    assert away[0] < 1.2 * away[1]


@pytest.mark.parametrize("frames", [1, 2])
def test_frames_are_laid_out_beside_those_before_them(frames: int) -> None:
    shape = (2, frames, 13, 15, 12)  # more pixels than a program holds, and part of its channels
    draw = torch.Generator().manual_seed(frames)
    mixed, before = torch.randn(2, *shape, generator=draw)
    shortcut = torch.cat([before, torch.full_like(before, torch.nan)], -1)  # half of it is read
    bias = torch.randn(12, generator=draw)
    past = torch.randn(2, 1, *shape[2:], generator=draw)
    mixed[0, 0, 0, 0, 0] = torch.nan

    expected = torch.cat([past, F.relu(mixed + bias + before)], 1)
    pairs = beside_the_last(Convolved(mixed, bias, shortcut), past)
    torch.testing.assert_close(
        pairs, torch.cat([expected[:, 1:], expected[:, :-1]], -1), equal_nan=True
    )
    torch.testing.assert_close(past, expected[:, -1:], equal_nan=True)


def test_grown_frames_and_pixels_come_to_their_places() -> None:
    four = torch.randn(2, 3, 4, 6, 4 * 2 * 5, generator=torch.Generator().manual_seed(0))
    both = interleave_phases(four, 2 * 5).unflatten(-1, (2, 5)).movedim(-2, 2).flatten(1, 2)
    torch.testing.assert_close(finished(Convolved(four, grown=2, relu=False)), both)
    torch.testing.assert_close(finished(Convolved(four, grown=2)), F.relu(both))
