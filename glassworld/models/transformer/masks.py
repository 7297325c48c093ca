"""Who sees whom in training, where all frames are there at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor


class MaskBlock(NamedTuple):
    """Consecutive tokens that see the same others: their place, and the places of those."""

    queries: slice
    keys: tuple[slice, ...]


def mask_blocks(visible: Tensor, per_frame: int) -> tuple[MaskBlock, ...]:
    """A mask among frames, boolean `[f, f]`, as what their tokens see, `per_frame` a frame.

    Frames that see the same are taken together, and so are neighbours that are seen.
    """
    rows = visible.tolist()
    groups = _runs(rows)
    return tuple(
        MaskBlock(
            slice(first * per_frame, last * per_frame),
            tuple(
                slice(begin * per_frame, end * per_frame)
                for begin, end in _runs(rows[first])
                if rows[first][begin]
            ),
        )
        for first, last in groups
    )


def _runs(values: list[list[bool]] | list[bool]) -> Iterator[tuple[int, int]]:
    """Where runs of equal values begin and end."""
    first = 0
    for index in range(1, len(values) + 1):
        if index == len(values) or values[index] != values[first]:
            yield first, index
            first = index
