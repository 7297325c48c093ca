"""The VAE: a clip in chunks equals the clip at once; the encoder has its receptive field."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glassworld.models.vae.causal_conv import FeatureCache
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
@settings(max_examples=10)
def test_vae_in_chunks_equals_the_clip_at_once(chunks: list[int]) -> None:
    encoder, decoder = networks()
    draw = torch.Generator().manual_seed(0)
    clip = torch.rand(1, 3, 1 + 4 * sum(chunks), 16, 16, generator=draw) * 2 - 1
    with torch.inference_mode():
        latents = encoder(clip)
        cache, start = FeatureCache(), 1
        parts = [encoder(clip[:, :, :1], cache)]
        for count in chunks:
            parts.append(encoder(clip[:, :, start : start + 4 * count], cache))
            start += 4 * count
        torch.testing.assert_close(torch.cat(parts, 2), latents, atol=1e-5, rtol=1e-4)

        pixels = decoder(latents)
        assert pixels.shape == clip.shape
        cache = FeatureCache()
        pieces = [decoder(latents[:, :, :1], cache), decoder(latents[:, :, 1:], cache)]
        torch.testing.assert_close(torch.cat(pieces, 2), pixels, atol=1e-5, rtol=1e-4)

        streamed = torch.cat(list(decoder.stream(latents, FeatureCache())), 1)[0]
        streamed = streamed.permute(3, 0, 1, 2).int()
        expected = ((pixels[0] + 1) * 127.5).int()
        assert (streamed - expected).abs().max() <= 1


def test_encoder_beyond_its_receptive_field_forgets_the_image() -> None:
    encoder, _ = networks()
    field = SPEC.encoder_receptive_field
    clip = torch.zeros(1, 3, 1 + 4 * (field + 2), 16, 16)
    clip[:, :, 0] = torch.linspace(-1, 1, 16)
    with torch.inference_mode():
        latents = encoder(clip)
    torch.testing.assert_close(latents[:, :, field + 1], latents[:, :, field + 2], atol=0, rtol=0)
    assert not torch.equal(latents[:, :, 1], latents[:, :, 2])


def test_released_encoder_has_a_receptive_field_of_28() -> None:
    assert VAESpec().encoder_receptive_field == 28
