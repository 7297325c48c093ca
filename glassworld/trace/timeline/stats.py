"""Robust statistics of times that a loaded machine disturbs: medians and what is far from them.

`GroupedMedians` finds exact medians of any number of values in memory that does not grow with their
number. The values stay in a table that spills to disk. Counts of values by size, kept while they
come in, say in which narrow range each group's median lies; only values of that range are looked at
again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from glassworld.trace.reading.columns import Codes, EventTable, Floats, Ints, Mask
from glassworld.trace.timeline.operator_totals import KeyedSums

MAD_TO_STD = 1.4826  # the standard deviation of normal values, per median absolute deviation
MEDIAN_TO_MEAN_ERROR = 1.2533  # the standard error of a median, per that of a mean; normal values

OUTLIER_DEVIATIONS = 5.0  # robust standard deviations from the median
OUTLIER_SHARE = 0.15  # and at least this much above the median
LEAST_OUTLIER_VALUES = 4

LEAST_GROUP = 3  # fewer values have no median that one of them does not move
TAIL = 4.0  # an excess is far in units of the upper quartile of its group's

ERROR_CHUNKS = 5

LEAST_TREND_VALUES = 7
MOST_PAIRED = 1000  # values; a trend looks at all pairs of them
STEADY_TAU = 0.6  # Kendall's tau above which a trend is called steady


_GROUPED = np.dtype([("group", "<i4"), ("at", "<i8")])
_MANTISSA_BITS = 45  # dropped of a float64's 52: a range then spans less than 1 % of its values
_RANGES = 1 << 20  # more than there are ranges, of either sign


def robust_std(values: Floats) -> float:
    """Return the standard deviation of normal values, from their median absolute deviation."""
    return MAD_TO_STD * float(np.median(np.abs(values - np.median(values))))


def outlier_mask(values: Floats) -> Mask:
    """Mark the values far above the median; none of fewer than four."""
    if len(values) < LEAST_OUTLIER_VALUES:
        return np.zeros(len(values), dtype=bool)
    median = np.median(values)
    excess = values - median
    mask: Mask = (excess > OUTLIER_DEVIATIONS * robust_std(values)) & (
        excess > OUTLIER_SHARE * median
    )
    return mask


def median_of_others(group: Ints, values: Floats) -> Floats:
    """Return for each value the median of the others in its group; infinity where it is alone."""
    order = np.lexsort((values, group))
    _, first, size = np.unique(group[order], return_index=True, return_counts=True)
    start, others = np.repeat(first, size), np.repeat(size - 1, size)
    rank = np.arange(len(values)) - start
    middle = [at + (at >= rank) for at in ((others - 1) // 2, others // 2)]  # skip the value itself
    below, above = (values[order][np.minimum(start + at, len(values) - 1)] for at in middle)
    medians = np.empty(len(values))
    medians[order] = np.where(others > 0, (below + above) / 2, np.inf)
    return medians


def median_standard_error(values: Floats) -> float:
    """Return the standard error of the median of values in order of time.

    It is estimated twice: as if the values were independent, and from the medians of a few
    consecutive chunks. The larger counts: on a machine that does other things too, neighbors are
    slow together, and many of them say little more than one.
    """
    error = _independent_standard_error(values)
    if len(values) >= 2 * ERROR_CHUNKS:
        medians = [float(np.median(chunk)) for chunk in np.array_split(values, ERROR_CHUNKS)]
        error = max(error, _independent_standard_error(np.array(medians)))
    return error


def _independent_standard_error(values: Floats) -> float:
    """Return the standard error of the median of independent values.

    For fewer than six values, half their range is the least standard deviation assumed.
    """
    std = robust_std(values)
    if len(values) < 6:
        std = max(std, float(values.max() - values.min()) / 2)
    return float(MEDIAN_TO_MEAN_ERROR * std / np.sqrt(len(values)))


def relative_trend(values: Floats) -> float | None:
    """Return the steady growth per value, as a share of their median.

    0 where the values do not grow steadily; None for fewer than seven values or a median of 0. The
    slope is Theil-Sen's, the median over all pairs, which single outliers do not move. Growth is
    steady if Kendall's tau exceeds 0.6. Of very many values, every second, third, ... is used: the
    number of pairs grows with the square.
    """
    if len(values) < LEAST_TREND_VALUES or not np.median(values):
        return None
    stride = -(-len(values) // MOST_PAIRED)
    i, j = stride * np.array(np.triu_indices(-(-len(values) // stride), 1))
    slopes = (values[j] - values[i]) / (j - i)
    if float(np.sign(slopes).mean()) < STEADY_TAU:
        return 0.0
    return float(np.median(slopes) / np.median(values))


@dataclass(frozen=True)
class GroupExcess:
    """The excess of each value over the median of its group; 0 in groups too small to have one.

    `far` marks the values whose excess is also beyond the group's own variation.
    """

    excess: Floats
    median: Floats
    far: Mask


def group_excess(values: Floats, group: Codes, reference: Mask) -> GroupExcess:
    """Compare each value with the `reference` values of its group."""
    excess, median = np.zeros(len(values)), np.zeros(len(values))
    far = np.zeros(len(values), dtype=bool)
    for members in group_members(group):
        compared = members[reference[members]]
        if len(compared) >= LEAST_GROUP:
            median[members] = np.median(values[compared])
            excess[members] = values[members] - median[members]
            deviation = OUTLIER_DEVIATIONS * robust_std(values[compared])
            tail = TAIL * np.quantile(excess[compared], 0.75, method="lower")
            far[members] = excess[members] > max(deviation, tail)
    return GroupExcess(excess, median, far)


def group_members(group: Codes) -> list[Ints]:
    """Return the indices of the members of each group."""
    order = np.argsort(group, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(group[order])) + 1) if len(group) else []


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
