"""Robust statistics of times that a loaded machine disturbs: medians and what is far from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from glassworld.trace.reading.columns import Codes, Floats, Ints, Mask

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
