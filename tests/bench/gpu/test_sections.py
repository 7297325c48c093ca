"""Sections that measure whole worlds, on the CPU."""

from __future__ import annotations

import json

import pytest

from glassworld.bench.gpu.check import ORDER
from glassworld.bench.gpu.context import BenchContext
from glassworld.bench.gpu.sections import SECTIONS, measure_sessions, measure_steady_state


def test_every_section_has_a_place_in_the_order() -> None:
    assert set(ORDER) == SECTIONS.keys() | {"machine", "correctness", "peak_rates"}


@pytest.mark.slow
def test_steady_state_and_sessions_are_measured(context: BenchContext) -> None:
    figures = {**measure_steady_state(context), **measure_sessions(context, (1, 2))}
    assert figures["fps_median"] > 0
    assert [row["sessions"] for row in figures["rows"]] == [1, 2]
    json.dumps(figures)
