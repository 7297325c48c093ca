"""The transformer: streaming with KV caches equals one masked forward over all frames."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from glassworld.models.transformer.action import ActionWindows
from glassworld.models.transformer.dit import DiT
from glassworld.specs import DiTSpec
from tests.support import tiny
from tests.support.block_causal import block_causal

GRID = (2, 3)


def inputs(frames: int) -> tuple[Tensor, ActionWindows, Tensor]:
    draw = torch.Generator().manual_seed(3)
    x = torch.randn(1, 36, frames, 2 * GRID[0], 2 * GRID[1], generator=draw)
    windows = ActionWindows(
        torch.rand(1, frames, 12, 4, generator=draw), torch.randn(1, frames, 12, 2, generator=draw)
    )
    return x, windows, torch.randn(1, 17, 24, generator=draw)


def stream(network: DiT, block: int, x: Tensor, windows: ActionWindows, visual: Tensor) -> Tensor:
    caches = network.empty_caches(1, GRID[0] * GRID[1])
    context, parts = network.context_kv(visual), []
    assert windows.mouse is not None
    for start in range(0, x.shape[2], block):
        block_frames = slice(start, start + block)
        seen = ActionWindows(windows.keyboard[:, block_frames], windows.mouse[:, block_frames])
        position = network.stream_position(start, block, GRID)
        time = torch.zeros(1, 1)
        parts.append(network(x[:, :, block_frames], time, position, seen, context, caches))
    return torch.cat(parts, 2)


def masked(network: DiT, block: int, x: Tensor, windows: ActionWindows, visual: Tensor) -> Tensor:
    spec, frames = network.spec, x.shape[2]
    visible = block_causal(frames, block, spec.window, spec.sink)
    position = network.training_position(
        torch.arange(frames), GRID, visible, block_causal(frames, block, spec.window)
    )
    return network(x, torch.zeros(1, frames), position, windows, network.context_kv(visual))


@pytest.mark.parametrize(
    ("window", "sink", "block"), [(6, 0, 3), (4, 0, 3), (5, 1, 2), (7, 2, 3), (3, 0, 1), (15, 0, 3)]
)
def test_dit_streaming_equals_training_forward(window: int, sink: int, block: int) -> None:
    network = tiny.dit(replace(tiny.DIT, window=window, sink=sink))
    clip_inputs = inputs(12)
    with torch.inference_mode():
        torch.testing.assert_close(
            stream(network, block, *clip_inputs),
            masked(network, block, *clip_inputs),
            atol=2e-5,
            rtol=1e-4,
        )


def test_dit_with_gradient_checkpointing_has_the_same_gradients() -> None:
    x, windows, visual = inputs(6)
    results = []
    for checkpointing in (False, True):
        network = DiT(tiny.DIT, gradient_checkpointing=checkpointing)
        tiny.fill(network, 1)
        network.requires_grad_(True)
        masked(network, 3, x, windows, visual).square().mean().backward()
        results.append(
            torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])
        )
    torch.testing.assert_close(results[0], results[1])


def test_training_position_of_late_frames_is_finite() -> None:
    network, frames = tiny.dit(), torch.arange(100_000, 100_003)
    position = network.training_position(frames, GRID)
    assert torch.isfinite(position.rotary.cos).all()
    assert not torch.equal(position.rotary.cos[0], position.rotary.cos[6])


def test_dit_spec_with_indivisible_width_is_rejected() -> None:
    with pytest.raises(ValueError, match="heads"):
        DiTSpec(action=tiny.DIT.action, dim=33)
