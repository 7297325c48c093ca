"""Tables of events in memory and on disk."""

import tempfile

import numpy as np
import pytest

from glassworld.errors import TraceError
from glassworld.trace.reading.columns import MEMORY, RANGE, EventTable


def test_event_table_on_disk_returns_its_rows():
    table = EventTable(RANGE, limit=100)
    rows = np.zeros(730, RANGE)
    rows["start"] = np.arange(730)
    for at in range(0, 730, 73):
        table.append(rows[at : at + 73])
    for _ in range(2):
        assert np.concatenate(list(table.slices()))["start"].tolist() == list(range(730))


def test_event_table_between_reads_a_time_range_from_memory_and_disk():
    random = np.random.default_rng(3)
    for dtype, time in ((RANGE, "start"), (MEMORY, "at")):
        rows = np.zeros(1000, dtype)
        rows[time] = random.integers(0, 500, 1000)
        table = EventTable(dtype, limit=150)
        for at in range(0, 1000, 70):
            table.append(rows[at : at + 70])
        for start, end in ((0, 500), (100, 130), (499, 600), (600, 700), (250, 250)):
            inside = rows[(rows[time] >= start) & (rows[time] < end)]
            assert table.between(start, end).tolist() == inside.tolist()


def test_event_table_full_disk_raises_one_clear_line(monkeypatch):
    def full(**_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    table = EventTable(RANGE, limit=10)
    with pytest.raises(TraceError, match="TMPDIR"):
        table.append(np.zeros(20, RANGE))
