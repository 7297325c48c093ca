"""Find which collective of a rank is which of another, also if the two began to record at others.

In a process group, all ranks run the same collectives in the same order. So one rank's are those of
another, shifted by some number. The names and sizes must agree for all that both have. Where they
agree for several shifts, as in training steps that are all alike, the ends tell: a collective ends
on all ranks at once, so at the right shift the difference between two clocks is the same for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from glassworld.trace.analyzers.collectives.records import Message
from glassworld.trace.reading.columns import Ints

MOST_SHIFTS = 2000  # that are tried, in either direction
LEAST_SHIFTED = 4
"""Collectives that two ranks must share for another shift than none."""

_CLEARLY = 4  # times the spread of one shift is that of another
_CLOCK_NS = 1000.0  # the spread of ends that no clock tells from none
_SAME_SIZE = ("all_reduce", "all_gather", "reduce_scatter", "broadcast", "reduce", "barrier")
"""Collectives whose message has one size on all ranks."""


@dataclass(frozen=True)
class Alignment:
    """How far behind another rank's collectives those of a rank begin; None: they do not line up.

    `by_size` says that names and sizes alone tell it. Where `certain` is false, the ranks may also
    have begun to record at other collectives.
    """

    shift: int | None
    certain: bool
    by_size: bool = False


@dataclass(frozen=True)
class _Fit:
    shift: int
    shared: int
    spread: float


def align(
    first: Sequence[Message], other: Sequence[Message], first_ends: Ints, other_ends: Ints
) -> Alignment:
    """Align the collectives of two ranks in one process group, in order; ends are nanoseconds."""
    fits = _fits(first, other, first_ends, other_ends)
    if not fits:
        return Alignment(None, certain=False)
    best = min(fits, key=lambda fit: (fit.spread, abs(fit.shift)))
    unshifted = next((fit for fit in fits if not fit.shift), best)
    if not _clearly_less(best, unshifted):
        best = unshifted
    alike = len(first) == len(other) and not best.shift
    others = [fit for fit in fits if fit is not best]
    certain = alike or all(_clearly_less(best, fit) for fit in others)
    return Alignment(best.shift, certain, by_size=not others)


def _clearly_less(one: _Fit, other: _Fit) -> bool:
    return _CLEARLY * (one.spread + _CLOCK_NS) < other.spread + _CLOCK_NS


def _fits(
    first: Sequence[Message], other: Sequence[Message], first_ends: Ints, other_ends: Ints
) -> list[_Fit]:
    """Return the shifts with which names and sizes agree, for half of the shorter list or more."""
    numbers: dict[tuple[Any, ...], int] = {}
    codes = [
        np.array([numbers.setdefault(_signature(m), len(numbers)) for m in messages])
        for messages in (first, other)
    ]
    fits = []
    least = max(1, min(len(first), len(other)) / 2)
    for shift in range(-min(len(other), MOST_SHIFTS), min(len(first), MOST_SHIFTS) + 1):
        mine, theirs = max(0, -shift), max(0, shift)
        shared = min(len(other) - mine, len(first) - theirs)
        if shared < (max(least, LEAST_SHIFTED) if shift else least):
            continue
        if (codes[0][theirs : theirs + shared] == codes[1][mine : mine + shared]).all():
            ahead = other_ends[mine : mine + shared] - first_ends[theirs : theirs + shared]
            spread = float(np.median(np.abs(ahead - np.median(ahead))))
            fits.append(_Fit(shift, shared, spread))
    return fits


def _signature(message: Message) -> tuple[Any, ...]:
    """Return what a collective has in common on all ranks."""
    size = message.bytes if message.name in _SAME_SIZE else None
    return message.name, message.dtype, size
