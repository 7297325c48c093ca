"""Find exact medians of any number of values in memory that does not grow with their number.

The values stay in a table that spills to disk. Counts of values by size, kept while they come in,
say in which narrow range each group's median lies; only values of that range are looked at again.
"""

from __future__ import annotations

import numpy as np

from glassworld.trace.reading.columns import EventTable, Ints
from glassworld.trace.timeline.operator_totals import KeyedSums

_GROUPED = np.dtype([("group", "<i4"), ("at", "<i8")])
_MANTISSA_BITS = 45  # dropped of a float64's 52: a range then spans less than 1 % of its values
_RANGES = 1 << 20  # more than there are ranges, of either sign


class GroupedMedians:
    """The medians of integers by group."""

    def __init__(self) -> None:
        self._values = EventTable(_GROUPED)
        self._counts = KeyedSums(1)

    def add(self, group: Ints, values: Ints) -> None:
        """Take in values with the number of the group of each."""
        rows = np.empty(len(values), _GROUPED)
        rows["group"], rows["at"] = group, values
        self._values.append(rows)
        self._counts.add(_range_keys(rows), np.ones((len(rows), 1), dtype=np.int64))

    def middle(self) -> dict[int, tuple[int, int]]:
        """Return the two values in the middle of each group; of an odd number, one value twice."""
        keys, counts = self._counts.keys, self._counts.sums[:, 0]
        if not len(keys):
            return {}
        until = np.cumsum(counts)
        groups, first, ranges = np.unique(keys // _RANGES, return_index=True, return_counts=True)
        before = until[first] - counts[first]
        number = until[first + ranges - 1] - before
        middle: dict[int, list[int]] = {group: [] for group in groups.tolist()}
        for rank in ((number - 1) // 2, number // 2):
            at = np.searchsorted(until, before + rank, "right")  # which range holds that rank
            within = before + rank - (until[at] - counts[at])
            for group, value in zip(
                groups.tolist(), self._at_rank(keys[at], within).tolist(), strict=True
            ):
                middle[group].append(value)
        return {group: (low, high) for group, (low, high) in middle.items()}

    def _at_rank(self, wanted: Ints, rank: Ints) -> Ints:
        """Return the value at `rank` in each of the `wanted` ranges, which are sorted."""
        keys, values = np.empty(0, np.int64), np.empty(0, np.int64)
        counts = np.empty(0, np.int64)
        for rows in self._values.slices():
            of = _range_keys(rows)
            at = np.minimum(np.searchsorted(wanted, of), len(wanted) - 1)
            chosen = wanted[at] == of
            keys = np.concatenate([keys, of[chosen]])
            values = np.concatenate([values, rows["at"][chosen]])
            counts = np.concatenate([counts, np.ones(int(chosen.sum()), np.int64)])
            keys, values, counts = _merge_equal(keys, values, counts)
        until = np.cumsum(counts)
        first = np.searchsorted(keys, wanted)
        before = until[first] - counts[first]
        return values[np.searchsorted(until, before + rank, "right")]


def _range_keys(rows: np.ndarray) -> Ints:
    """Return the group and the range of each value as one number; both in order."""
    values = rows["at"]
    size = np.abs(values).astype(np.float64).view(np.int64) >> _MANTISSA_BITS
    keys: Ints = rows["group"] * np.int64(_RANGES) + np.sign(values) * size + _RANGES // 2
    return keys


def _merge_equal(keys: Ints, values: Ints, counts: Ints) -> tuple[Ints, Ints, Ints]:
    """Return the distinct pairs of key and value in order, and the sum of the counts of each."""
    order = np.lexsort((values, keys))
    keys, values, counts = keys[order], values[order], counts[order]
    new = np.concatenate([[True], (np.diff(keys) != 0) | (np.diff(values) != 0)])[: len(keys)]
    which = np.cumsum(new) - 1
    sums = np.bincount(which, counts).astype(np.int64)
    return keys[new], values[new], sums
