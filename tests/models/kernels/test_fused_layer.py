"""The transformer's layers by kernels, interpreted on a CPU, equal the plain layers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

import tests.support.interpreted  # noqa: F401  (before anything imports Triton)
from glassworld.errors import InputError
from glassworld.models.kernels.fused_layer import FusedLayer, fuse_layers
from glassworld.models.kernels.norm_residual import FLOAT8, ResidualSum
from glassworld.models.ops.quantized import quantize_layers
from glassworld.models.transformer.action import ActionWindows
from glassworld.models.transformer.dit import DiT
from glassworld.models.transformer.kv_cache import LayerCache
from glassworld.models.transformer.layer import BlockPosition
from glassworld.specs import DiTSpec
from tests.support import tiny

GRID, BLOCK, POSITIONS = (1, 2), 3, 2
TIMES = ([[700.0]], [[300.0, 200.0, 100.0]])
SPEC = replace(
    tiny.DIT, num_layers=2, window=5, sink=1, action=replace(tiny.DIT.action, layers=(0,))
)


def run_blocks(network: DiT, sessions: int = 1, blocks: int = 2) -> tuple[Tensor, list[LayerCache]]:
    """Return the flows of blocks, each followed by its cache update, and the caches.

    Two blocks make the caches wrap.
    """
    draw, dtype = torch.Generator().manual_seed(3), network.head.head.weight.dtype

    def random(*shape: int) -> Tensor:
        return torch.randn(sessions, *shape, generator=draw).to(dtype)

    caches = network.empty_caches(sessions, POSITIONS)
    context, flows = network.context_kv(random(5, 24)), []
    for block, time in enumerate(TIMES[:blocks]):
        position = BlockPosition.cat(
            [network.stream_position(block * BLOCK, BLOCK, GRID)] * sessions
        )
        mouse = random(BLOCK, 12, 2) if network.spec.action.mouse_dim else None
        inputs = (position, ActionWindows(random(BLOCK, 12, 4), mouse), context, caches)
        x, times = random(36, BLOCK, 2, 4), torch.tensor(time)  # one for all sessions
        flows.append(network(x, times, *inputs))
        network(x, 0 * times[:, :1], *inputs, output=False)
    return torch.cat(flows, 2), caches


def network_pair(spec: DiTSpec, dtype: torch.dtype = torch.float32) -> tuple[DiT, DiT]:
    """Return a plain and a fused network of the same weights."""
    plain, fused = tiny.dit(spec).to(dtype), tiny.dit(spec).to(dtype)
    fuse_layers(fused)
    assert all(isinstance(layer, FusedLayer) for layer in fused.blocks)
    return plain, fused


@pytest.mark.parametrize(
    ("dtype", "tolerance", "sessions"),
    [
        (torch.float16, 1e-2, 1),
        pytest.param(torch.float32, 1e-5, 2, marks=pytest.mark.slow),
        pytest.param(torch.float32, 1e-5, 1, marks=pytest.mark.slow),
        pytest.param(torch.float16, 1e-2, 2, marks=pytest.mark.slow),
    ],
)
@torch.inference_mode()
def test_fused_layers_equal_plain_layers_in_flows_and_caches(
    dtype: torch.dtype, tolerance: float, sessions: int
) -> None:
    (expected, expected_caches), (flows, caches) = (
        run_blocks(network, sessions) for network in network_pair(SPEC, dtype)
    )
    torch.testing.assert_close(flows, expected, atol=tolerance, rtol=0)
    for cache, expected_cache in zip(caches, expected_caches, strict=True):
        for ring, expected_ring in (
            (cache.self_attention, expected_cache.self_attention),
            (cache.mouse, expected_cache.mouse),
            (cache.keyboard, expected_cache.keyboard),
        ):
            assert (ring is None) == (expected_ring is None)
            if ring is not None and expected_ring is not None:
                torch.testing.assert_close(ring.k, expected_ring.k, atol=tolerance, rtol=0)
                torch.testing.assert_close(ring.v, expected_ring.v, atol=tolerance, rtol=0)


@torch.inference_mode()
def test_fused_layers_rotate_each_session_by_its_own_frames() -> None:
    plain, fused = network_pair(replace(SPEC, window=6, sink=0))
    flows = []
    for network in (plain, fused):
        positions = [network.stream_position(start, BLOCK, GRID) for start in (6, 60)]
        draw = torch.Generator().manual_seed(1)
        x, keyboard, mouse, visual = (
            torch.randn(2, *shape, generator=draw)
            for shape in ((36, BLOCK, 2, 4), (BLOCK, 12, 4), (BLOCK, 12, 2), (5, 24))
        )
        context, caches = network.context_kv(visual), network.empty_caches(2, POSITIONS)
        inputs = (BlockPosition.cat(positions), ActionWindows(keyboard, mouse), context, caches)
        flows.append(network(x, torch.full((2, 1), 500.0), *inputs))
    torch.testing.assert_close(flows[1], flows[0], atol=1e-5, rtol=0)


@torch.inference_mode()
def test_fused_layers_without_a_mouse_equal_plain_layers() -> None:
    plain, fused = network_pair(replace(SPEC, action=replace(SPEC.action, mouse_dim=0)))
    flows, expected = (run_blocks(network, blocks=1)[0] for network in (fused, plain))
    torch.testing.assert_close(flows, expected, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_fused_layer_defers_its_last_sum_to_the_next_layer() -> None:
    _, fused = network_pair(SPEC)
    outputs: list[type] = []
    for layer in fused.blocks:
        layer.register_forward_hook(lambda _, __, output: outputs.append(type(output)))
    run_blocks(fused, blocks=1)
    # The block's two layers, then the first one of its update.
    assert outputs == [ResidualSum, Tensor, ResidualSum]


@torch.inference_mode()
def test_fused_layers_quantize_to_float8_in_their_kernels() -> None:
    exact, plain, fused = (tiny.dit(SPEC) for _ in range(3))
    for network in (plain, fused):
        quantize_layers(network.blocks, FLOAT8)
    fuse_layers(fused)
    expected, plain_flows, fused_flows = (
        run_blocks(network, blocks=1)[0] for network in (exact, plain, fused)
    )
    error = (plain_flows - expected).square().mean().sqrt()
    # Twice the error because the interpreter rounds some numbers wrongly: see test_norm_residual.
    assert 0 < (fused_flows - expected).square().mean().sqrt() < 2 * error


@pytest.mark.parametrize(
    ("heads", "width", "message"),
    [(3, 24, "powers of two, not 3"), (4, 32, "heads of 16 numbers or more, not of 8")],
)
def test_fuse_layers_with_unsuitable_heads_names_them(heads: int, width: int, message: str) -> None:
    action = replace(SPEC.action, heads=heads, keyboard_width=width, mouse_width=width)
    with pytest.raises(InputError, match=message):
        fuse_layers(DiT(replace(SPEC, action=action)))


def test_fused_layers_in_training_run_the_plain_code() -> None:
    plain, fused = network_pair(SPEC)
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
