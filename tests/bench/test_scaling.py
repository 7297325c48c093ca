"""The curve of a run."""

from __future__ import annotations

from glassworld.bench.scaling import curve_along_run


def test_curve_along_a_run_has_the_median_of_each_part() -> None:
    assert curve_along_run([1.0, 1.0, 5.0, 5.0], parts=2) == [(1.0, 1.0), (3.0, 5.0)]
    assert curve_along_run([2.0], parts=12) == [(0.5, 2.0)]
