"""Tags on the roofline."""

import pytest

from glassworld.trace import analyze
from glassworld.trace.analyzers.roofline import roofline_by_tag


def test_roofline_points_stay_below_the_attainable_rate(run, store_peak_rates):
    store_peak_rates(matmul=100.0, conv=50.0, copy=1.0)
    points = {point.tag: point for point in roofline_by_tag(analyze(run()))}
    feed = points["DiT_Feed_Forward"]
    assert feed.gflop == pytest.approx(8 * (3 * 4 + 3) * (4 * 72 * 64 * 128) / 1e9)
    assert feed.bound == "memory"
    assert feed.roof_gflops == pytest.approx(feed.intensity * 1.0)
    for point in points.values():
        assert point.roof_gflops is not None
        assert point.roof_gflops == pytest.approx(min(point.intensity, 100), rel=0.5)
        assert point.roof_gflops <= point.intensity * 1.0001
        assert point.roof_share == pytest.approx(point.gflops / point.roof_gflops)
