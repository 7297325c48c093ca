"""Folded causal convolutions equal `conv3d`."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from glassworld.models.ops import onednn
from glassworld.models.vae.causal_conv import TAPS, CausalConv, fold_taps, unfold_taps


@pytest.mark.parametrize("shape", [(5, 4, 3, 3, 3), (6, 2, 3, 1, 1), (4, 3, 1, 1, 1)])
def test_unfold_taps_inverts_fold_taps(shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(unfold_taps(fold_taps(weight), shape[2]), weight)


@pytest.mark.parametrize(
    ("outputs", "frames", "frames_per_conv"), [(5, 3, 1), (5, 4, 2), (3, 4, 4)]
)
def test_causal_conv_equals_conv3d(outputs: int, frames: int, frames_per_conv: int) -> None:
    layer = CausalConv(4, outputs)
    assert layer.frames_per_conv(frames) == frames_per_conv
    draw = torch.Generator().manual_seed(1)
    weight = torch.randn(outputs, 4, 3, 3, 3, generator=draw)
    assert layer.bias is not None
    layer.weight.data, layer.bias.data = fold_taps(weight), torch.arange(float(outputs))
    x = torch.randn(2, frames, 6, 7, 4, generator=draw)
    padded = F.pad(x.permute(0, 4, 1, 2, 3), (1, 1, 1, 1, 2, 0))
    expected = F.conv3d(padded, weight, layer.bias)
    with torch.inference_mode():
        torch.testing.assert_close(
            layer(x, None).permute(0, 4, 1, 2, 3), expected, atol=1e-5, rtol=1e-4
        )


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="no oneDNN")
@pytest.mark.parametrize(("kernel", "batch", "frames"), [(3, 1, 2), (3, 2, 1), (1, 1, 3)])
def test_packed_conv3d_equals_folded_taps(kernel: int, batch: int, frames: int) -> None:
    draw = torch.Generator().manual_seed(2)
    layer = CausalConv(8, 16, kernel)
    x = torch.randn(batch, TAPS - 1 + frames, 9, 10, 8, generator=draw)
    with torch.inference_mode():
        folded = layer.convolve_stacked(layer.stack_taps(x, frames), frames, layer.bias)
        packed = layer.convolve_as_packed_conv3d(x)
    torch.testing.assert_close(packed, folded, atol=1e-5, rtol=1e-4)
    assert packed.is_contiguous()


@pytest.mark.parametrize(("inputs", "outputs", "frames"), [(8, 16, 5), (3, 16, 4), (16, 3, 4)])
def test_training_by_conv3d_gives_the_gradients_of_folded_taps(
    inputs: int, outputs: int, frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = torch.Generator().manual_seed(3)
    layer = CausalConv(inputs, outputs)
    assert layer.bias is not None
    x = torch.randn(2, frames, 9, 10, inputs, generator=draw, requires_grad=True)
    results = []
    for by_conv3d in (False, True):
        monkeypatch.setattr(onednn, "prefers_conv3d", lambda answer=by_conv3d: answer)
        y = layer(x, None)
        wanted = (x, layer.weight, layer.bias)
        results.append((y, *torch.autograd.grad(y.square().sum(), wanted)))
    for by_taps, by_conv3d_too in zip(*results, strict=True):
        torch.testing.assert_close(by_conv3d_too, by_taps, atol=1e-3, rtol=1e-4)
    assert not torch.equal(results[0][2], results[1][2])  # they are computed in different ways


@pytest.mark.parametrize("trains", [False, True])
def test_compiler_follows_a_convolution_without_a_warning(trains: bool) -> None:
    layer = CausalConv(8, 16)
    x = torch.randn(1, 4, 9, 10, 8, generator=torch.Generator().manual_seed(4))
    compiled = torch.compile(layer, backend="eager", fullgraph=True)  # needs no C++ compiler
    try:
        with torch.set_grad_enabled(trains):
            torch.testing.assert_close(compiled(x, None), layer(x, None), atol=1e-5, rtol=1e-4)
    finally:
        torch.compiler.reset()
