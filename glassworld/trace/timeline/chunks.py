"""Split a large trace into chunks of time, each small enough to be analyzed in memory.

A cut lies where no tag is open. Tags that outlast a chunk (the one around the whole run) would
leave no such place: those are split, with a piece in each chunk they reach.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from glassworld.trace.reading.columns import EventTable, Ints, Trace
from glassworld.trace.timeline.attribution import TIMED_OP, DeviceClock, match_launches
from glassworld.trace.timeline.intervals import nest_intervals
from glassworld.trace.timeline.memory import Owner, by_owner

CHUNK_ROWS = 1 << 18
TAG_WEIGHT = 7
_LAUNCHED = np.dtype([("at", "<i8"), *TIMED_OP.descr])

Rows = npt.NDArray[np.void]


def split_trace(trace: Trace) -> Iterator[Trace]:
    """Yield the chunks in order of time; the trace itself if one is enough.

    A GPU operation belongs to the chunk of its launch, however much later it ran.
    """
    count = math.ceil(_weight(trace) / CHUNK_ROWS)
    cuts = _cuts(trace, count) if count > 1 else []
    if not cuts:
        yield trace
        return
    longest = _longest(trace, count)
    spanning, launched = _clipped(spanning_tags(trace)), _by_launch(trace, count)
    allocated: dict[Owner, Rows] = {}
    for start, end in pairwise([-(2**62), *cuts, 2**62]):
        tags, carried, pieces = _tags(trace, longest, spanning, start, end)
        ops = launched.between(start, end)[list(TIMED_OP.names or ())].astype(TIMED_OP)
        yield replace(
            trace,
            tag_rows=EventTable.from_rows(tags),
            launch_rows=EventTable.from_rows(trace.launch_rows.between(start, end)),
            device_rows=EventTable.from_rows(ops),
            memory=EventTable.from_rows(_memory(trace, allocated, start, end)),
            ops=EventTable.from_rows(trace.ops.between(start, end)),
            python=EventTable.from_rows(trace.python.between(start, end)),
            carried=carried,
            pieces=pieces,
        )


def _weight(trace: Trace) -> int:
    """Return the number of rows; a tag counts several times, for the memory of its analysis."""
    return sum(map(len, trace.tables)) + TAG_WEIGHT * len(trace.tag_rows)


def _by_launch(trace: Trace, ranges: int) -> EventTable:
    """Return the GPU operations with the time of their launch, or of their start without one.

    They are matched one range of correlation ids at a time, which is all that memory must hold.
    """
    table = EventTable(_LAUNCHED)
    if not len(trace.device_rows):
        return table
    timed = _in_time(trace, ranges)
    lowest, highest = 2**62, -(2**62)
    for rows in trace.device_rows.slices():
        lowest = min(lowest, int(rows["correlation"].min()))
        highest = max(highest, int(rows["correlation"].max()))
    edges = [lowest + (highest + 1 - lowest) * i // ranges for i in range(ranges + 1)]
    for low, high in pairwise(edges):
        ops, launches = (_correlated(s, low, high) for s in (timed, trace.launch_rows))
        launch = match_launches(ops, launches)
        rows = np.empty(len(ops), _LAUNCHED)
        for name in TIMED_OP.names or ():
            rows[name] = ops[name]
        rows["at"] = ops["start"]
        rows["at"][launch >= 0] = launches["start"][launch[launch >= 0]]
        table.append(rows)
    return table


def _in_time(trace: Trace, ranges: int) -> EventTable:
    """Return the GPU operations in order of their start, with what each adds to the busy time."""
    table = EventTable(TIMED_OP)
    edges = [trace.start + (trace.end + 1 - trace.start) * i // ranges for i in range(ranges + 1)]
    clock = DeviceClock(trace)
    for start, end in pairwise(edges):
        table.append(clock.timed(trace.device_rows.between(start, end)))
    return table


def _correlated(table: EventTable, low: int, high: int) -> Rows:
    """Return the rows with a correlation id from `low` to below `high`."""
    selected = [np.empty(0, table.dtype)]
    for rows in table.slices():
        selected.append(rows[(rows["correlation"] >= low) & (rows["correlation"] < high)])
    return np.concatenate(selected)


def _cuts(trace: Trace, count: int) -> list[int]:
    """Return times that split the rows about evenly and lie in no tag but the spanning ones."""
    batches = np.array([batch for table in trace.tables for batch in table.batches()])
    batches = batches[np.argsort(batches[:, 1], kind="stable")]
    rows = np.cumsum(batches[:, 0])
    at = np.searchsorted(rows, rows[-1] * np.arange(1, count) / count)
    cuts = batches[at, 1]
    while True:
        moved = cuts.copy()
        for tags in trace.tag_rows.slices():
            short = tags[tags["dur"] <= _longest(trace, count)]
            ends = short["start"] + short["dur"]
            for i, cut in enumerate(moved):
                open_tags = (short["start"] < cut) & (ends > cut)
                moved[i] = ends[open_tags].max(initial=cut)
        if (moved == cuts).all():
            return sorted({int(cut) for cut in cuts if trace.start < cut < trace.end})
        cuts = moved


def _longest(trace: Trace, count: int) -> int:
    """Return the duration above which a tag spans chunks."""
    return (trace.end - trace.start) // count


def spanning_tags(trace: Trace) -> Rows:
    """Return the tags longer than a chunk: those that are split."""
    longest = _longest(trace, math.ceil(_weight(trace) / CHUNK_ROWS))
    long = [tags[tags["dur"] > longest] for tags in trace.tag_rows.slices()]
    return np.concatenate([np.empty(0, trace.tag_rows.dtype), *long])


def _clipped(spanning: Rows) -> Rows:
    """Return the tags, outer ones first, each clipped to its parent."""
    forest = nest_intervals(spanning)
    clipped = spanning.copy()
    clipped["dur"] = forest.end - spanning["start"]
    return clipped[np.lexsort((forest.depth, clipped["start"]))]


def _tags(
    trace: Trace, longest: int, spanning: Rows, start: int, end: int
) -> tuple[Rows, int, int]:
    """Return the tags of a chunk, pieces of spanning ones first.

    Also return how many of them began earlier, and how many are pieces.
    """
    inside = trace.tag_rows.between(start, end)
    inside = inside[inside["dur"] <= longest]
    ends = spanning["start"] + spanning["dur"]
    reaching = (spanning["start"] < end) & (ends > start)
    pieces, ends = spanning[reaching].copy(), np.minimum(ends[reaching], end)
    carried = pieces["start"] < start
    pieces["start"] = np.maximum(pieces["start"], start)
    pieces["dur"] = ends - pieces["start"]
    order: Ints = np.argsort(~carried, kind="stable")
    return np.concatenate([pieces[order], inside]), int(carried.sum()), len(pieces)


def _memory(trace: Trace, allocated: dict[Owner, Rows], start: int, end: int) -> Rows:
    """Return the allocations of a chunk behind the last one of each record before it."""
    rows = trace.memory.between(start, end)
    rows = rows[np.argsort(rows["at"], kind="stable")]
    with_earlier = np.concatenate([*allocated.values(), rows])
    for owner, own_rows in by_owner(trace, rows):
        allocated[owner] = own_rows[-1:]
    return with_earlier
