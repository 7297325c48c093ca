"""The ring KV cache."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glassworld.models.transformer.kv_cache import CacheSlots
from tests.support.block_causal import block_causal


@given(
    window=st.integers(1, 12),
    sink=st.integers(0, 4),
    frames=st.integers(1, 5),
    blocks=st.integers(1, 12),
)
@settings(max_examples=200)
def test_ring_cache_holds_the_frames_that_the_mask_shows(
    window: int, sink: int, frames: int, blocks: int
) -> None:
    if sink + frames > window:
        with pytest.raises(ValueError, match="does not fit"):
            CacheSlots.for_block(0, window - sink + 1, window, sink)
        return
    slots: dict[int, int] = {}
    for block in range(blocks):
        block_slots = CacheSlots.for_block(block * frames, frames, window, sink)
        for source, slot, length in block_slots.spans:
            slots.update({slot + i: block * frames + source + i for i in range(length)})
    end = blocks * frames
    visible = block_causal(end, frames, window, sink)[-1]
    cached = {slots[slot] for slot in range(block_slots.filled)}
    assert cached == {int(frame) for frame in visible.nonzero()}
