"""The transformer: streaming with caches equals one masked forward over all frames."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from glassworld.models.transformer.action import ActionWindows
from glassworld.models.transformer.dit import DiT
from glassworld.models.transformer.kv_cache import CacheSlots
from glassworld.specs import DiTSpec
from tests.support import tiny

GRID = (2, 3)


def inputs(frames: int) -> tuple[Tensor, ActionWindows, Tensor]:
    draw = torch.Generator().manual_seed(3)
    x = torch.randn(1, 36, frames, 2 * GRID[0], 2 * GRID[1], generator=draw)
    windows = ActionWindows(
        torch.rand(1, frames, 12, 4, generator=draw), torch.randn(1, frames, 12, 2, generator=draw)
    )
    return x, windows, torch.randn(1, 17, 24, generator=draw)


def block_causal(frames: int, block: int, window: int, sink: int = 0) -> Tensor:
    """Which frame sees which, as the ring makes it: boolean `[frames, frames]`.

    A frame sees its own block whole and the frames before it that the window, counted back from
    the block's end, still holds beside the sinks.
    """
    index = torch.arange(frames)
    end = (torch.div(index, block, rounding_mode="floor") + 1) * block
    past = index[None, :] < end[:, None]
    recent = index[None, :] >= (end[:, None] - (window - sink)).clamp(min=sink)
    return past & (recent | (index < sink)[None, :])


def stream(network: DiT, block: int, x: Tensor, windows: ActionWindows, visual: Tensor) -> Tensor:
    caches = network.empty_caches(1, GRID[0] * GRID[1])
    context, parts = network.context_kv(visual), []
    for start in range(0, x.shape[2], block):
        here = slice(start, start + block)
        seen = ActionWindows(windows.keyboard[:, here], windows.mouse[:, here])
        place = network.stream_position(start, block, GRID)
        time = torch.zeros(1, 1)
        parts.append(network(x[:, :, here], time, place, seen, context, caches))
    return torch.cat(parts, 2)


def masked(network: DiT, block: int, x: Tensor, windows: ActionWindows, visual: Tensor) -> Tensor:
    spec, frames = network.spec, x.shape[2]
    visible = block_causal(frames, block, spec.window, spec.sink)
    place = network.training_position(
        torch.arange(frames), GRID, visible, block_causal(frames, block, spec.window)
    )
    return network(x, torch.zeros(1, frames), place, windows, network.context_kv(visual))


@pytest.mark.parametrize(
    ("window", "sink", "block"), [(6, 0, 3), (4, 0, 3), (5, 1, 2), (7, 2, 3), (3, 0, 1), (15, 0, 3)]
)
def test_stream_equals_training_forward(window: int, sink: int, block: int) -> None:
    network = tiny.dit(replace(tiny.DIT, window=window, sink=sink))
    given_inputs = inputs(12)
    with torch.inference_mode():
        torch.testing.assert_close(
            stream(network, block, *given_inputs),
            masked(network, block, *given_inputs),
            atol=2e-5,
            rtol=1e-4,
        )


def test_gradient_checkpointing_changes_nothing() -> None:
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


def test_no_upper_limit_on_the_frame_index() -> None:
    network, frames = tiny.dit(), torch.arange(100_000, 100_003)
    place = network.training_position(frames, GRID)
    assert torch.isfinite(place.rotary.cos).all()
    assert not torch.equal(place.rotary.cos[0], place.rotary.cos[6])


@given(
    window=st.integers(1, 12),
    sink=st.integers(0, 4),
    frames=st.integers(1, 5),
    blocks=st.integers(1, 12),
)
@settings(max_examples=200, deadline=None)
def test_ring_holds_the_window(window: int, sink: int, frames: int, blocks: int) -> None:
    if sink + frames > window:
        with pytest.raises(ValueError, match="does not fit"):
            CacheSlots.for_block(0, window - sink + 1, window, sink)
        return
    slots: dict[int, int] = {}
    for block in range(blocks):
        place = CacheSlots.for_block(block * frames, frames, window, sink)
        for source, slot, length in place.spans:
            slots.update({slot + i: block * frames + source + i for i in range(length)})
    end = blocks * frames
    visible = block_causal(end, frames, window, sink)[-1]
    held = {slots[slot] for slot in range(place.filled)}
    assert held == {int(frame) for frame in visible.nonzero()}


def test_spec_says_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="heads"):
        DiTSpec(action=tiny.DIT.action, dim=33)
