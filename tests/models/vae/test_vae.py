"""The VAE: a clip in chunks comes out as at once, and the encoder forgets as its spec says."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from glassworld.models.ops.packed_weights import PackedWeights
from glassworld.models.vae.blocks import Upsample
from glassworld.models.vae.causal_conv import CausalConv, FeatureCache, fold_taps, unfold_taps
from glassworld.models.vae.decoder import VAEDecoder
from glassworld.models.vae.encoder import VAEEncoder
from glassworld.specs import VAESpec
from tests.support import tiny

SPEC = tiny.SPEC.vae


def networks(spec: VAESpec = SPEC) -> tuple[VAEEncoder, VAEDecoder]:
    pair = VAEEncoder(spec), VAEDecoder(spec)
    for seed, network in enumerate(pair):
        tiny.fill(network, seed)
    return pair


@given(st.lists(st.integers(1, 3), min_size=1, max_size=3))
@settings(max_examples=10, deadline=None)
def test_chunks_equal_the_clip(chunks: list[int]) -> None:
    encoder, decoder = networks()
    draw = torch.Generator().manual_seed(0)
    clip = torch.rand(1, 3, 1 + 4 * sum(chunks), 16, 16, generator=draw) * 2 - 1
    with torch.inference_mode():
        latents = encoder(clip)
        memory, start = FeatureCache(), 1
        parts = [encoder(clip[:, :, :1], memory)]
        for count in chunks:
            parts.append(encoder(clip[:, :, start : start + 4 * count], memory))
            start += 4 * count
        torch.testing.assert_close(torch.cat(parts, 2), latents, atol=1e-5, rtol=1e-4)

        pixels = decoder(latents)
        assert pixels.shape == clip.shape
        memory = FeatureCache()
        pieces = [decoder(latents[:, :, :1], memory), decoder(latents[:, :, 1:], memory)]
        torch.testing.assert_close(torch.cat(pieces, 2), pixels, atol=1e-5, rtol=1e-4)

        streamed = torch.cat(list(decoder.stream(latents, FeatureCache())), 1)[0]
        streamed = streamed.permute(3, 0, 1, 2).int()
        expected = ((pixels[0] + 1) * 127.5).int()
        assert (streamed - expected).abs().max() <= 1


def test_the_encoder_forgets_the_picture() -> None:
    encoder, _ = networks()
    reach = SPEC.encoder_receptive_field
    clip = torch.zeros(1, 3, 1 + 4 * (reach + 2), 16, 16)
    clip[:, :, 0] = torch.linspace(-1, 1, 16)
    with torch.inference_mode():
        latents = encoder(clip)
    torch.testing.assert_close(latents[:, :, reach + 1], latents[:, :, reach + 2], atol=0, rtol=0)
    assert not torch.equal(latents[:, :, 1], latents[:, :, 2])


def test_the_released_reach() -> None:
    assert VAESpec().encoder_receptive_field == 28


@pytest.mark.parametrize("shape", [(5, 4, 3, 3, 3), (6, 2, 3, 1, 1), (4, 3, 1, 1, 1)])
def test_folding_goes_both_ways(shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(unfold_taps(fold_taps(weight), shape[2]), weight)


@pytest.mark.parametrize(("outputs", "frames", "at_once"), [(5, 3, 1), (5, 4, 2), (3, 4, 4)])
def test_folded_convolution_is_conv3d(outputs: int, frames: int, at_once: int) -> None:
    layer = CausalConv(4, outputs)
    assert layer.at_once(frames) == at_once
    draw = torch.Generator().manual_seed(1)
    weight = torch.randn(outputs, 4, 3, 3, 3, generator=draw)
    layer.weight.data, layer.bias.data = fold_taps(weight), torch.arange(float(outputs))
    x = torch.randn(2, frames, 6, 7, 4, generator=draw)
    padded = F.pad(x.permute(0, 4, 1, 2, 3), (1, 1, 1, 1, 2, 0))
    expected = F.conv3d(padded, weight, layer.bias)
    with torch.inference_mode():
        torch.testing.assert_close(
            layer(x, None).permute(0, 4, 1, 2, 3), expected, atol=1e-5, rtol=1e-4
        )


def test_upsampling_is_nearest_then_a_convolution() -> None:
    layer = Upsample(8, temporal=False)
    tiny.fill(layer, 3)
    x = torch.randn(2, 3, 5, 6, 8, generator=torch.Generator().manual_seed(1))
    doubled = x.repeat_interleave(2, 2).repeat_interleave(2, 3).flatten(0, 1)
    expected = F.conv2d(doubled.permute(0, 3, 1, 2), layer.conv.weight, layer.conv.bias, padding=1)
    with torch.inference_mode():
        torch.testing.assert_close(
            layer(x, None).flatten(0, 1).permute(0, 3, 1, 2), expected, atol=1e-5, rtol=1e-4
        )


def test_what_is_derived_follows_its_weight() -> None:
    packed, weight = PackedWeights(), torch.ones(2)
    with torch.inference_mode():
        first = packed.get(weight, lambda w: w + 1)
        assert packed.get(weight, lambda w: w + 1) is first
        assert packed.get(weight, lambda w: w + 2, key="another") is not first
    with torch.no_grad():
        weight.mul_(3)
    with torch.inference_mode():
        assert packed.get(weight, lambda w: w + 1).tolist() == [4, 4]
        assert packed.get(torch.ones(1), lambda w: w - 1, key="of inference mode").tolist() == [0]
    weight.requires_grad_(True)
    assert packed.get(weight, lambda w: w + 1).requires_grad
