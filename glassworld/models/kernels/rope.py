"""What the kernels over heads share: slots of a window, and pairs turned."""

from __future__ import annotations

from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from glassworld.models.transformer.kv_cache import CacheSlots
from glassworld.models.transformer.rope import RotaryTable


@cache  # captured graphs go on reading them
def slots(place: CacheSlots, device: torch.device) -> Tensor:
    """The slot of each of a block's frames, on the device."""
    spans = sorted(place.spans)
    each = [span.slot + index for span in spans for index in range(span.length)]
    with torch.inference_mode(False):
        return torch.tensor(each, dtype=torch.int32, device=device)


@triton.jit
def turned(x, cos, sin, rows: tl.constexpr, width: tl.constexpr):
    """`[rows, width]`, pair by pair; `cos` and `sin`: `[rows or 1, width / 2]`."""
    even, odd = tl.split(tl.reshape(x, (rows, width // 2, 2)))
    pairs = tl.join(even * cos - odd * sin, even * sin + odd * cos)
    return tl.reshape(pairs, (rows, width))


def of_session(rotary: RotaryTable) -> int:
    """How far one session's table is from the next one's: 0 where all share one."""
    return rotary.cos.stride(0) if rotary.cos.dim() > 2 else 0
