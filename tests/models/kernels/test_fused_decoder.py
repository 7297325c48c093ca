"""The fused decoder decodes and caches what the plain one does, by Triton's interpreter."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import tests.support.interpreted  # noqa: F401 (before the kernels)
from glassworld.engine.acceleration.autotune import choose_convolutions, convolution_inputs
from glassworld.engine.acceleration.compile import compile_decoder
from glassworld.models.kernels.fused_decoder import fuse_decoder
from glassworld.models.vae.causal_conv import CausalConv, FeatureCache
from glassworld.models.vae.decoder import VAEDecoder
from glassworld.specs import VAESpec
from tests.support import tiny

SPEC = VAESpec(width=4, multiples=(1, 2, 2), residual_blocks=1, temporal=(False, True))


def decoder_pair(conv3d: bool, dtype: torch.dtype = torch.float32) -> tuple[VAEDecoder, VAEDecoder]:
    """Return a plain and a fused decoder of the same weights."""
    plain, fused = VAEDecoder(SPEC), VAEDecoder(SPEC)
    fuse_decoder(fused)
    for decoder in (plain, fused):
        tiny.fill(decoder, 1)
        decoder.to(dtype)
        for layer in decoder.modules():
            if isinstance(layer, CausalConv):
                layer.uses_conv3d = conv3d and layer.kernel_size == (3, 3)
    return plain, fused


def clip(frames: int) -> Tensor:
    return torch.randn(2, 16, frames, 2, 3, generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def decode(decoders: list[VAEDecoder], latents: Tensor) -> tuple[Tensor, FeatureCache]:
    """Stream the latent frames, each through the decoder at its index."""
    cache, pixels = FeatureCache(), []
    for decoder, frame in zip(decoders, latents.split(1, 2), strict=True):
        pixels.append(decoder.decode_frame(decoder.preprocess(frame), cache))
        cache.first = False
    return torch.cat(pixels, 1), cache


@pytest.mark.parametrize("conv3d", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_fused_decoder_equals_plain_decoder(conv3d: bool) -> None:
    plain, fused = decoder_pair(conv3d)
    pixels, cache = decode([fused] * 3, clip(3))
    expected, expected_cache = decode([plain] * 3, clip(3))
    torch.testing.assert_close(pixels, expected, atol=5e-5, rtol=1e-4)
    assert cache.frames.keys() == expected_cache.frames.keys()
    assert len(expected_cache.frames) == fused.cached_layers
    for name, frames in expected_cache.frames.items():
        torch.testing.assert_close(cache.frames[name], frames, atol=5e-5, rtol=1e-4)


def test_fused_decoder_continues_a_plain_decoders_clip_and_back() -> None:
    plain, fused = decoder_pair(conv3d=False)
    expected, _ = decode([plain] * 5, clip(5))
    pixels, _ = decode([plain, plain, fused, plain, fused], clip(5))
    torch.testing.assert_close(pixels, expected, atol=5e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "dtype", [torch.float16, pytest.param(torch.bfloat16, marks=pytest.mark.slow)]
)
def test_fused_decoder_in_half_precision_has_the_plain_decoders_error(dtype: torch.dtype) -> None:
    exact = decode([decoder_pair(False)[0]] * 3, clip(3))[0]
    plain, fused = (
        decode([decoder] * 3, clip(3).to(dtype))[0] for decoder in decoder_pair(False, dtype)
    )
    errors = [(pixels - exact).square().mean().sqrt() for pixels in (fused, plain)]
    # The interpreter truncates bfloat16 instead of rounding it.
    assert errors[0] < (2 if dtype is torch.bfloat16 else 1.2) * errors[1]


def test_choose_convolutions_measures_a_fused_decoder() -> None:
    world = tiny.world()
    decoder = tiny.vae_decoder(world)
    names = decoder.state_dict().keys()
    fuse_decoder(decoder)
    assert decoder.state_dict().keys() == names
    measured = choose_convolutions(world.spec, world.networks)
    layers = [layer for layer, _ in convolution_inputs(world.spec, decoder)]
    assert [layer.epilogue_fused for layer in layers] == [False] + [True] * (len(layers) - 1)
    assert all(ms > 0 for times in measured.values() for ms in times.values())
    paths = {path for path, layer in decoder.named_modules() if isinstance(layer, CausalConv)}
    assert {layer.name for layer in layers} < paths


def test_compile_decoder_leaves_a_fused_decoder_alone() -> None:
    decoder = decoder_pair(conv3d=False)[1]
    assert compile_decoder(decoder, tiny.SPEC, "auto") == ""
    assert "runs by kernels" in compile_decoder(decoder, tiny.SPEC, "force")
    assert not decoder.compiled
