"""Linear layers and convolutions by oneDNN equal torch's, also after a weight changes."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from glassworld.models.ops import onednn
from glassworld.models.ops.linear import PackedLinear
from glassworld.models.vae.blocks import Upsample
from glassworld.models.vae.causal_conv import TAPS, CausalConv, FeatureCache
from glassworld.models.vae.decoder import VAEDecoder
from tests.support import tiny

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this torch was built without oneDNN"
)


def plain(layer: PackedLinear, x: Tensor) -> Tensor:
    x = F.linear(x, layer.weight, layer.bias)
    return F.gelu(x, approximate="tanh") if layer.gelu else x


@contextmanager
def without_onednn() -> Iterator[None]:
    """Switch oneDNN off; `torch.backends.mkldnn.flags` would warn of missing features."""
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(True)


def close(ours: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the calls to oneDNN, in order."""
    seen: list[str] = []
    for name in ("linear", "conv2d", "conv3d"):
        own = getattr(onednn, name)

        def recorded(*args: object, own=own, name=name, **kwargs: object) -> Tensor:
            seen.append(name)
            return own(*args, **kwargs)

        monkeypatch.setattr(onednn, name, recorded)
    return seen


@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("large", [False, True])  # a large weight is not packed
def test_packed_linear_equals_torch(
    gelu: bool, bias: bool, large: bool, monkeypatch: pytest.MonkeyPatch, calls: list[str]
) -> None:
    if large:
        monkeypatch.setattr(onednn, "MAX_PACKED_NUMEL", 0)
    torch.manual_seed(0)
    layer, x = PackedLinear(192, 256, bias, gelu), torch.randn(2, 3, 24, 192)
    with torch.inference_mode():
        for rows in (x, x.transpose(1, 2), x[:1]):
            close(layer(rows), plain(layer, rows))
        assert calls == ["linear"] * 3
        assert torch.equal(layer(x)[:1], layer(x[:1]))  # a session is the same beside another


def test_onednn_in_bfloat16_rounds_once(calls: list[str]) -> None:
    torch.manual_seed(0)
    layer, conv, x = PackedLinear(192, 256, gelu=True), CausalConv(48, 64), torch.randn(72, 192)
    frames = torch.randn(1, 3, 16, 24, 48)
    with torch.inference_mode():
        exact, seen = plain(layer, x), conv(frames, None)
        calls.clear()
        near, half = layer.bfloat16()(x.bfloat16()), conv.bfloat16()(frames.bfloat16(), None)
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        assert calls == ["linear", "conv2d"]
    for ours, expected in ((near, exact), (half, seen)):
        assert ours.dtype is torch.bfloat16
        assert (ours.float() - expected).square().mean().sqrt() < 0.005 * expected.std()


def test_packed_linear_leaves_small_inputs_and_gradients_to_torch(calls: list[str]) -> None:
    layer, x = PackedLinear(192, 256, gelu=True), torch.randn(72, 192)
    layer(x).sum().backward()
    assert layer.weight.grad is not None
    with torch.inference_mode():
        assert torch.equal(layer(x[:2]), plain(layer, x[:2]))
        layer.double()(x.double())
    with torch.inference_mode(), without_onednn():
        layer.float()(x)
    assert calls == []


def test_packed_linear_with_a_changed_weight_packs_it_again(calls: list[str]) -> None:
    layer, other, x = PackedLinear(192, 256), PackedLinear(192, 256), torch.randn(72, 192)
    with torch.inference_mode():
        first = layer(x)
    copied = copy.deepcopy(layer)
    layer.load_state_dict(other.state_dict())
    with torch.inference_mode():
        close(layer(x), plain(other, x))
        assert torch.equal(copied(x), first)
    assert calls == ["linear"] * 3


def test_decoder_without_onednn_decodes_the_same() -> None:
    """Without oneDNN, torch's convolutions of 16 images and more answer channels first."""
    decoder = VAEDecoder(tiny.SPEC.vae)
    tiny.fill(decoder, 1)
    latents = torch.randn(1, 16, 5, 2, 2, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = decoder(latents)
        with without_onednn():
            torch.testing.assert_close(decoder(latents), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("max_packed", [onednn.MAX_PACKED_NUMEL, 0])
def test_causal_conv_with_large_output_accumulates_tap_by_tap(
    max_packed: int, monkeypatch: pytest.MonkeyPatch, calls: list[str]
) -> None:
    monkeypatch.setattr(onednn, "MAX_PACKED_NUMEL", max_packed)
    monkeypatch.setattr(onednn, "prefers_conv3d", lambda: False)
    torch.manual_seed(0)
    conv, x = CausalConv(16, 24), torch.randn(2, 6, 48, 64, 16)
    cache, other = FeatureCache(), FeatureCache()
    with torch.inference_mode():
        parts = [conv(part, cache) for part in (x[:, :5], x[:, 5:])]
        assert len(calls) == TAPS + (max_packed > 0)  # the second output is small
        with without_onednn():
            close(torch.cat(parts, 1), conv(x, other))
    assert torch.equal(cache.frames[""], other.frames[""])


@pytest.mark.parametrize("over_time", ["conv2d", "conv3d"])
def test_convolutions_by_onednn_equal_torchs(
    over_time: str, monkeypatch: pytest.MonkeyPatch, calls: list[str]
) -> None:
    monkeypatch.setattr(onednn, "prefers_conv3d", lambda: over_time == "conv3d")
    torch.manual_seed(0)
    conv, up = CausalConv(48, 64), Upsample(64, temporal=False)
    x = torch.randn(1, 3, 16, 24, 48)
    with torch.inference_mode():
        ours = up(conv(x, None), None)
        assert calls == [over_time, "conv2d"]
        with without_onednn():
            expected = up(conv(x, None), None)
    assert calls == [over_time, "conv2d"]
    close(ours, expected)
    close(ours, up(conv(x, None), None).detach())  # as in training
