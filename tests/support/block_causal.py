"""The block-causal mask that the ring KV cache amounts to."""

from __future__ import annotations

import torch
from torch import Tensor


def block_causal(frames: int, block: int, window: int, sink: int = 0) -> Tensor:
    """Return which frame sees which, boolean `[frames, frames]`.

    A frame sees its own block whole and the frames before it that the window, counted back from
    the block's end, still holds beside the sinks.
    """
    index = torch.arange(frames)
    end = (torch.div(index, block, rounding_mode="floor") + 1) * block
    past = index[None, :] < end[:, None]
    recent = index[None, :] >= (end[:, None] - (window - sink)).clamp(min=sink)
    return past & (recent | (index < sink)[None, :])
