"""Robust statistics."""

import numpy as np
import pytest

from glassworld.trace.timeline.stats import median_of_others


@pytest.mark.parametrize("seed", range(5))
def test_median_of_others_equals_the_median_without_the_value(seed):
    chance = np.random.default_rng(seed)
    group, values = chance.integers(0, 12, 40), chance.integers(0, 9, 40) / 4
    medians = median_of_others(group, values)
    for i in range(40):
        others = np.delete(values, i)[np.delete(group, i) == group[i]]
        assert medians[i] == (np.median(others) if len(others) else np.inf)
