"""Helpers of the kernels over heads: slots of the ring KV cache, and RoPE on tiles."""

from __future__ import annotations

from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from glassworld.models.transformer.kv_cache import CacheSlots
from glassworld.models.transformer.rope import RotaryTable


@cache  # captured graphs go on reading them
def slot_indices(slots: CacheSlots, device: torch.device) -> Tensor:
    """Return the slot of each of a block's frames, int32 `[f]` on the device."""
    spans = sorted(slots.spans)
    indices = [span.slot + index for span in spans for index in range(span.length)]
    with torch.inference_mode(False):
        return torch.tensor(indices, dtype=torch.int32, device=device)


@triton.jit
def rotate_pairs(x, cos, sin, rows: tl.constexpr, width: tl.constexpr):
    """Rotate `[rows, width]` pair by pair; `cos` and `sin`: `[rows or 1, width / 2]`."""
    even, odd = tl.split(tl.reshape(x, (rows, width // 2, 2)))
    pairs = tl.join(even * cos - odd * sin, even * sin + odd * cos)
    return tl.reshape(pairs, (rows, width))


def session_stride(rotary: RotaryTable) -> int:
    """Return the distance from one session's table to the next one's: 0 where they share one."""
    return rotary.cos.stride(0) if rotary.cos.dim() > 2 else 0
