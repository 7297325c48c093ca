"""The kernel between two convolutions adds, norms, stacks taps and updates the cache."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import tests.support.interpreted  # noqa: F401 (before the kernels)
from glassworld.models.kernels.conv_epilogue import ConvSum, conv_epilogue
from glassworld.models.kernels.deferred_sum import materialize
from glassworld.models.vae.blocks import interleave_phases
from glassworld.models.vae.causal_conv import CausalConv, FeatureCache


@pytest.mark.parametrize("frames", [1, 2, 4])
@pytest.mark.parametrize("layout", ["taps", "all taps at once", "conv3d"])
def test_conv_epilogue_stacks_frames_after_the_cached_ones(frames: int, layout: str) -> None:
    layer = CausalConv(12, 3 if layout == "all taps at once" else 12)
    layer.name, layer.uses_conv3d = "layer", layout == "conv3d"
    shape = (2, frames, 13, 15, 12)  # more pixels than a program holds, and part of its channels
    draw = torch.Generator().manual_seed(frames)
    conv, shortcut = torch.randn(2, *shape, generator=draw)
    bias, gamma = torch.randn(2, 12, generator=draw)
    conv[0, 0, 0, 0], shortcut[0, 0, 0, 0] = 0, -bias  # a pixel of zeros stays one
    past = torch.randn(2, 2, *shape[2:], generator=draw)
    cache, total = FeatureCache(frames={"layer": past.clone()}), torch.empty(shape)

    added = conv + bias + shortcut
    activated = F.silu(F.normalize(added, dim=-1) * 12**0.5 * gamma)
    sequence = torch.cat([past, activated], 1)
    stacked = conv_epilogue(ConvSum(conv, bias, shortcut), gamma, layer, cache, total)
    torch.testing.assert_close(stacked, layer.stack_taps(sequence, frames))
    torch.testing.assert_close(cache.frames["layer"], sequence[:, -2:])
    torch.testing.assert_close(total, added)


def test_conv_sum_of_polyphase_output_interleaves_its_pixels() -> None:
    conv = torch.randn(2, 3, 4, 6, 4 * 5, generator=torch.Generator().manual_seed(0))
    bias = torch.arange(5.0)
    torch.testing.assert_close(
        materialize(ConvSum(conv, bias, polyphase=True)), interleave_phases(conv, 5) + bias
    )
