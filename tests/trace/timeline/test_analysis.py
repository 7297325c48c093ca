"""Self times add up."""

import pytest

from glassworld.trace import analyze


def test_self_times_add_up_to_the_whole(run):
    analysis = analyze(run())
    whole = sum(row.cpu_ms for row in analysis.tags if len(row.path) == 1)
    assert sum(row.self_cpu_ms for row in analysis.tags) == pytest.approx(whole, rel=1e-6)
