"""Spread ranges over lanes, so that those of one lane never overlap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Lanes:
    """The lane of every range; a lane's name is its group and its number in the group."""

    of: npt.NDArray[np.int32]
    names: list[tuple[Any, int]]


def lane_of(rows: npt.NDArray[np.void], group: npt.NDArray[Any]) -> Lanes:
    """Return lanes of ranges with `start` and `dur`: as few as each group needs."""
    of = np.zeros(len(rows), dtype=np.int32)
    distinct, which = np.unique(group, return_inverse=True)
    order = np.lexsort((-rows["dur"], rows["start"], which))
    ends: list[list[tuple[int, int]]] = [[] for _ in distinct]  # of a group: end, lane
    names: list[tuple[Any, int]] = []
    for i, g, start, dur in zip(
        order.tolist(),
        which[order].tolist(),
        rows["start"][order].tolist(),
        rows["dur"][order].tolist(),
        strict=True,
    ):
        free = next((n for n, (end, _) in enumerate(ends[g]) if end <= start), -1)
        if free < 0:
            ends[g].append((start + dur, len(names)))
            names.append((distinct[g].tolist(), len(ends[g]) - 1))
        else:
            ends[g][free] = (start + dur, ends[g][free][1])
        of[i] = ends[g][free][1]
    return Lanes(of, names)
