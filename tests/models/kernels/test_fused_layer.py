"""The transformer's kernels, interpreted on a processor, do as its layers do."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

import tests.support.interpreted  # noqa: F401  (before anything imports Triton)
from glassworld.errors import InputError
from glassworld.models.kernels.action_attention import TILE, attend_own, attend_shared
from glassworld.models.kernels.fused_layer import FusedLayer, fuse_layers
from glassworld.models.kernels.norm_residual import EIGHT_BITS, Pending, gelu_to_eight_bits
from glassworld.models.ops.attention import attention
from glassworld.models.ops.norms import rms_norm
from glassworld.models.ops.quantized import quantize, quantize_layers
from glassworld.models.transformer.action import ActionWindows
from glassworld.models.transformer.dit import DiT
from glassworld.models.transformer.kv_cache import CacheSlots, LayerCache, RingKVCache
from glassworld.models.transformer.layer import BlockPosition
from glassworld.models.transformer.rope import rope_temporal
from glassworld.specs import DiTSpec
from tests.support import tiny

GRID, BLOCK, POSITIONS = (1, 2), 3, 2
TIMES = ([[700.0]], [[0.0]], [[300.0, 200.0, 100.0]])
SPEC = replace(
    tiny.DIT, num_layers=2, window=7, sink=1, action=replace(tiny.DIT.action, layers=(0,))
)


def walk(network: DiT, sessions: int = 1) -> tuple[Tensor, list[LayerCache]]:
    """The flows of blocks until the windows have wrapped, with their updates; and the caches."""
    draw, dtype = torch.Generator().manual_seed(3), network.head.head.weight.dtype

    def drawn(*shape: int) -> Tensor:
        return torch.randn(sessions, *shape, generator=draw).to(dtype)

    caches = network.empty_caches(sessions, POSITIONS)
    context, flows = network.context_kv(drawn(5, 24)), []
    for start, time in zip(range(0, 3 * BLOCK, BLOCK), TIMES, strict=True):
        places = [network.stream_position(start, BLOCK, GRID)] * sessions
        mouse = drawn(BLOCK, 12, 2) if network.spec.action.mouse_dim else None
        given = (BlockPosition.cat(places), ActionWindows(drawn(BLOCK, 12, 4), mouse))
        x, times = drawn(36, BLOCK, 2, 4), torch.tensor(time)  # one for all sessions
        flows.append(network(x, times, *given, context, caches))
        network(x, 0 * times[:, :1], *given, context, caches, output=False)
    return torch.cat(flows, 2), caches


def networks(spec: DiTSpec, dtype: torch.dtype = torch.float32) -> tuple[DiT, DiT]:
    """The same twice: as written, and by kernels."""
    plain, fused = tiny.dit(spec).to(dtype), tiny.dit(spec).to(dtype)
    fuse_layers(fused)
    assert all(isinstance(layer, FusedLayer) for layer in fused.blocks)
    return plain, fused


@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-5), (torch.float16, 1e-2)])
@pytest.mark.parametrize("sessions", [1, 2])
@torch.inference_mode()
def test_flows_and_caches_are_the_same(dtype: torch.dtype, most: float, sessions: int) -> None:
    (expected, kept), (made, own) = (walk(each, sessions) for each in networks(SPEC, dtype))
    torch.testing.assert_close(made, expected, atol=most, rtol=0)
    for one, other in zip(own, kept, strict=True):
        for window, same in (
            (one.self_attention, other.self_attention),
            (one.mouse, other.mouse),
            (one.keyboard, other.keyboard),
        ):
            assert (window is None) == (same is None)
            if window is not None and same is not None:
                torch.testing.assert_close(window.k, same.k, atol=most, rtol=0)
                torch.testing.assert_close(window.v, same.v, atol=most, rtol=0)


@torch.inference_mode()
def test_each_session_turns_by_its_own_frames() -> None:
    plain, fused = networks(replace(SPEC, window=6, sink=0))
    flows = []
    for network in (plain, fused):
        places = [network.stream_position(start, BLOCK, GRID) for start in (6, 60)]
        draw = torch.Generator().manual_seed(1)
        x, keyboard, mouse, visual = (
            torch.randn(2, *shape, generator=draw)
            for shape in ((36, BLOCK, 2, 4), (BLOCK, 12, 4), (BLOCK, 12, 2), (5, 24))
        )
        context, caches = network.context_kv(visual), network.empty_caches(2, POSITIONS)
        given = (BlockPosition.cat(places), ActionWindows(keyboard, mouse), context, caches)
        flows.append(network(x, torch.full((2, 1), 500.0), *given))
    torch.testing.assert_close(flows[1], flows[0], atol=1e-5, rtol=0)


@torch.inference_mode()
def test_worlds_without_a_mouse() -> None:
    plain, fused = networks(replace(SPEC, action=replace(SPEC.action, mouse_dim=0)))
    torch.testing.assert_close(walk(fused)[0], walk(plain)[0], atol=1e-5, rtol=0)


@torch.inference_mode()
def test_a_layer_leaves_its_last_sum_to_the_next_one() -> None:
    _, fused = networks(SPEC)
    left: list[type] = []
    for layer in fused.blocks:
        layer.register_forward_hook(lambda _, __, made: left.append(type(made)))
    walk(fused)
    assert left == [Pending, Tensor, Pending] * 3  # a block's, and its update's but for the last


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize(("heads", "frames", "slots"), [(8, 3, 6), (1, 1, 3)])
def test_short_attentions(own: bool, heads: int, frames: int, slots: int) -> None:
    """Several sessions, more positions than a tile holds, more heads, slots not yet filled."""
    sessions, positions, head_dim, eps = 2, TILE + 2, 16, 1e-6
    draw = torch.Generator().manual_seed(1)
    q = torch.randn(sessions, frames, positions, heads * head_dim, generator=draw)
    sequences = sessions * positions if own else sessions
    k, v = torch.randn(2, sequences, heads, slots, head_dim, generator=draw)
    window, place = RingKVCache(k, v, 1), CacheSlots.for_block(slots - 1 - frames, frames, slots)
    tables = [rope_temporal(torch.arange(frames) + start, 8, head_dim, 1e4) for start in (3, 30)]
    rotary = tables[0].cat(tables, 2)

    heads_of_q = q.unflatten(3, (heads, head_dim)).permute(0, 2, 3, 1, 4)  # [b, p, h, f, d]
    queries = rotary.rotate(rms_norm(heads_of_q, eps))
    past = [x.reshape(sessions, -1, heads, slots - 1, head_dim) for x in window.filled(place)]
    seen = attention(queries, *(x.expand(-1, positions, -1, -1, -1) for x in past))
    made = (attend_own if own else attend_shared)(q, eps, rotary, window, place)
    expected = seen.permute(0, 3, 1, 2, 4).flatten(3)
    torch.testing.assert_close(made, expected, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_eight_bits_come_from_the_kernels() -> None:
    exact, plain, fused = (tiny.dit(SPEC) for _ in range(3))
    for network in (plain, fused):
        quantize_layers(network.blocks, EIGHT_BITS)
    fuse_layers(fused)
    expected, near, made = (walk(each)[0] for each in (exact, plain, fused))
    distance = (near - expected).square().mean().sqrt()
    assert 0 < (made - expected).square().mean().sqrt() < 2 * distance  # see below


@pytest.mark.parametrize("width", [40, 60, 64, 560])
def test_rows_in_eight_bits_are_those_of_the_plain_way(width: int) -> None:
    x = torch.randn(3, width, generator=torch.Generator().manual_seed(1))
    gelu = torch.nn.functional.gelu(x, approximate="tanh")
    made, expected = gelu_to_eight_bits(x), quantize(gelu, EIGHT_BITS)
    torch.testing.assert_close(made.scales, expected.scales)
    numbers = expected.rows.float()
    rounded_up = numbers.abs().log2() % 1 == 0  # to the next power of two: interpreted, it is lost
    assert rounded_up.float().mean() < 0.2
    assert torch.equal(made.rows.float()[~rounded_up], numbers[~rounded_up])


@pytest.mark.parametrize(
    ("heads", "width", "words"),
    [(3, 24, "powers of two, not 3"), (4, 32, "heads of 16 numbers or more, not of 8")],
)
def test_heads_that_do_not_suit_are_named(heads: int, width: int, words: str) -> None:
    action = replace(SPEC.action, heads=heads, keyboard_width=width, mouse_width=width)
    with pytest.raises(InputError, match=words):
        fuse_layers(DiT(replace(SPEC, action=action)))


def test_training_goes_the_plain_way() -> None:
    plain, fused = networks(SPEC)
    frames = torch.arange(BLOCK)
    visible = torch.ones(BLOCK, BLOCK, dtype=torch.bool)
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(1, 36, BLOCK, 2, 4, generator=draw)
    windows = ActionWindows(torch.ones(1, BLOCK, 12, 4), torch.ones(1, BLOCK, 12, 2))
    flows = [
        network(
            x,
            torch.full((1, BLOCK), 400.0),
            network.training_position(frames, GRID, visible),
            windows,
            network.context_kv(torch.ones(1, 5, 24)),
        )
        for network in (plain, fused)
    ]
    assert torch.equal(*flows)
