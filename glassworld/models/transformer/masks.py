"""Block-causal masks in training, where all frames are present at once.

Streaming needs no mask: the ring KV cache holds exactly the frames that a block sees.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor


class MaskBlock(NamedTuple):
    """Consecutive query tokens that see the same keys, and the slices of those keys."""

    queries: slice
    keys: tuple[slice, ...]


def mask_blocks(visible: Tensor, per_frame: int) -> tuple[MaskBlock, ...]:
    """Return a mask among frames as dense blocks of attention among their tokens.

    `visible`: boolean `[f, f]`, true where the row's frame sees the column's; `per_frame`: tokens
    of a frame. Neighboring frames that see the same frames share a block, and neighboring visible
    frames share a slice of keys.
    """
    rows = visible.tolist()
    return tuple(
        MaskBlock(
            slice(first * per_frame, last * per_frame),
            tuple(
                slice(begin * per_frame, end * per_frame)
                for begin, end in _runs(rows[first])
                if rows[first][begin]
            ),
        )
        for first, last in _runs(rows)
    )


def _runs(values: list[list[bool]] | list[bool]) -> Iterator[tuple[int, int]]:
    """Yield the half-open ranges of runs of equal values."""
    first = 0
    for index in range(1, len(values) + 1):
        if index == len(values) or values[index] != values[first]:
            yield first, index
            first = index
