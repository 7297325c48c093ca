"""Axes and labels of the plots."""

from __future__ import annotations

from itertools import pairwise

from glassworld.bench import plots


def test_ticks_cover_an_axis() -> None:
    assert plots.Axis(0, 9, 0, 100).ticks() == [0, 2, 4, 6, 8]
    assert plots.Axis(0.5, 200, 0, 100, logarithmic=True).ticks() == [1, 10, 100]
    assert plots.Axis(1, 100, 0, 50, logarithmic=True).at(10) == 25


def test_labels_that_would_overlap_are_moved_apart() -> None:
    positions = plots._spread_labels([(0, 50), (20, 52), (500, 51), (10, 49)])
    assert positions[2] == (500, 51)
    near = sorted(y for x, y in positions if x < 100)
    assert all(below - above >= 11 for above, below in pairwise(near))
