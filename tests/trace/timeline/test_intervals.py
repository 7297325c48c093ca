"""Ranges nest by thread and time."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from glassworld.trace.reading.columns import RANGE
from glassworld.trace.timeline.intervals import nest_intervals

ranges = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 60), st.integers(0, 30)), max_size=25)


@given(ranges)
def test_nest_intervals_clips_children_to_their_parents(values):
    rows = np.array([(0, thread, start, dur) for thread, start, dur in values], RANGE)
    forest = nest_intervals(rows)
    for i, parent in enumerate(forest.parent):
        assert rows["start"][i] <= forest.end[i] <= rows["start"][i] + rows["dur"][i]
        if parent >= 0:
            assert rows["thread"][i] == rows["thread"][parent]
            assert rows["start"][parent] <= rows["start"][i] <= forest.end[parent]
            assert forest.end[i] <= forest.end[parent]
            assert forest.depth[i] == forest.depth[parent] + 1


@given(ranges)
def test_nest_intervals_outer_range_changes_nothing_inside(values):
    """The ranges of a busy period with a crossing are nested one by one, the others at once."""
    inner = [(0, thread, 1 + start, dur) for thread, start, dur in values]
    around = [(0, thread, 0, 100) for thread in range(3)]
    alone, within = (
        nest_intervals(np.array(inner, RANGE)),
        nest_intervals(np.array(around + inner, RANGE)),
    )
    assert within.end[3:].tolist() == alone.end.tolist()
    assert within.depth[3:].tolist() == (alone.depth + 1).tolist()
    roots = np.array([thread for _, thread, _, _ in inner], int)
    expected = np.where(alone.parent < 0, roots, alone.parent + 3)
    assert within.parent[3:].tolist() == expected.tolist()
    assert within.clipped == alone.clipped
