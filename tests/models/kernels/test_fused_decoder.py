"""The fused decoder shows and remembers what the plain one does, by Triton's interpreter."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import tests.support.interpreted  # noqa: F401 (before the kernels)
from glassworld.engine.acceleration.autotune import choose_convolutions, convolution_inputs
from glassworld.engine.acceleration.compile import compile_decoder
from glassworld.models.kernels.conv_epilogue import Pending, conv_epilogue, finished
from glassworld.models.kernels.fused_decoder import fuse_decoder
from glassworld.models.vae.blocks import interleave_phases
from glassworld.models.vae.causal_conv import CausalConv, FeatureCache
from glassworld.models.vae.decoder import VAEDecoder
from glassworld.specs import VAESpec
from tests.support import tiny

SPEC = VAESpec(width=4, multiples=(1, 2, 2), residual_blocks=1, temporal=(False, True))


def pair(direct: bool, dtype: torch.dtype = torch.float32) -> tuple[VAEDecoder, VAEDecoder]:
    """A plain and a fused decoder of the same weights."""
    plain, fused = VAEDecoder(SPEC), VAEDecoder(SPEC)
    fuse_decoder(fused)
    for decoder in (plain, fused):
        tiny.fill(decoder, 1)
        decoder.to(dtype)
        for layer in decoder.modules():
            if isinstance(layer, CausalConv):
                layer.uses_conv3d = direct and layer.kernel_size == (3, 3)
    return plain, fused


def clip(frames: int) -> Tensor:
    return torch.randn(2, 16, frames, 2, 3, generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def decode(decoders: list[VAEDecoder], latents: Tensor) -> tuple[Tensor, FeatureCache]:
    """The latent frames in a stream, each by the decoder of its place."""
    memory, pixels = FeatureCache(), []
    for decoder, frame in zip(decoders, latents.split(1, 2), strict=True):
        pixels.append(decoder.decode_frame(decoder.preprocess(frame), memory))
        memory.first = False
    return torch.cat(pixels, 1), memory


@pytest.mark.parametrize("direct", [False, True])
def test_the_fused_decoder_is_the_plain_one(direct: bool) -> None:
    plain, fused = pair(direct)
    pixels, memory = decode([fused] * 3, clip(3))
    expected, kept = decode([plain] * 3, clip(3))
    torch.testing.assert_close(pixels, expected, atol=5e-5, rtol=1e-4)
    assert memory.frames.keys() == kept.frames.keys()
    assert len(kept.frames) == fused.remembering
    for name, frames in kept.frames.items():
        torch.testing.assert_close(memory.frames[name], frames, atol=5e-5, rtol=1e-4)


def test_a_clip_goes_on_in_either() -> None:
    plain, fused = pair(direct=False)
    expected, _ = decode([plain] * 5, clip(5))
    pixels, _ = decode([plain, plain, fused, plain, fused], clip(5))
    torch.testing.assert_close(pixels, expected, atol=5e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_as_near_as_the_plain_decoder(dtype: torch.dtype) -> None:
    exact = decode([pair(False)[0]] * 3, clip(3))[0]
    plain, fused = (decode([each] * 3, clip(3).to(dtype))[0] for each in pair(False, dtype))
    away = [(pixels - exact).square().mean().sqrt() for pixels in (fused, plain)]
    # The interpreter cuts bfloat16 off instead of rounding it.
    assert away[0] < (2 if dtype is torch.bfloat16 else 1.2) * away[1]


@pytest.mark.parametrize("frames", [1, 2, 4])
@pytest.mark.parametrize("way", ["taps", "all taps at once", "conv3d"])
def test_frames_are_laid_out_after_those_remembered(frames: int, way: str) -> None:
    layer = CausalConv(12, 3 if way == "all taps at once" else 12)
    layer.name, layer.uses_conv3d = "layer", way == "conv3d"
    shape = (2, frames, 13, 15, 12)  # more pixels than a program holds, and part of its channels
    draw = torch.Generator().manual_seed(frames)
    mixed, shortcut = torch.randn(2, *shape, generator=draw)
    bias, gamma = torch.randn(2, 12, generator=draw)
    mixed[0, 0, 0, 0], shortcut[0, 0, 0, 0] = 0, -bias  # a pixel of zeros stays one
    past = torch.randn(2, 2, *shape[2:], generator=draw)
    memory, total = FeatureCache(frames={"layer": past.clone()}), torch.empty(shape)

    added = mixed + bias + shortcut
    activated = F.silu(F.normalize(added, dim=-1) * 12**0.5 * gamma)
    seen = torch.cat([past, activated], 1)
    laid = conv_epilogue(Pending(mixed, bias, shortcut), gamma, layer, memory, total)
    torch.testing.assert_close(laid, layer.stack_taps(seen, frames))
    torch.testing.assert_close(memory.frames["layer"], seen[:, -2:])
    torch.testing.assert_close(total, added)


def test_upsampled_pixels_come_to_their_places() -> None:
    four = torch.randn(2, 3, 4, 6, 4 * 5, generator=torch.Generator().manual_seed(0))
    bias = torch.arange(5.0)
    torch.testing.assert_close(
        finished(Pending(four, bias, polyphase=True)), interleave_phases(four, 5) + bias
    )


def test_convolutions_of_a_fused_decoder_are_chosen() -> None:
    world = tiny.world()
    decoder = world.pipeline.decoder
    names = decoder.state_dict().keys()
    fuse_decoder(decoder)
    assert decoder.state_dict().keys() == names
    measured = choose_convolutions(world)
    layers = [layer for layer, _ in convolution_inputs(world, decoder)]
    assert [layer.epilogue_fused for layer in layers] == [False] + [True] * (len(layers) - 1)
    assert all(ms > 0 for times in measured.values() for ms in times.values())
    paths = {path for path, layer in decoder.named_modules() if isinstance(layer, CausalConv)}
    assert {layer.name for layer in layers} < paths


def test_a_fused_decoder_is_not_compiled() -> None:
    decoder = pair(direct=False)[1]
    assert compile_decoder(decoder, tiny.SPEC, "auto") == ""
    assert "runs by kernels" in compile_decoder(decoder, tiny.SPEC, "force")
    assert not decoder.compiled
