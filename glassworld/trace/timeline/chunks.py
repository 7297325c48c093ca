"""A large trace in stretches of time, each small enough to be analysed in memory.

A cut lies where no tag is open. Tags that outlast a stretch (the one around the whole run) would
leave no such place: those are carried, a piece into each stretch they reach.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from glassworld.trace.reading.columns import DEVICE_OP, Ints, Spool, Trace
from glassworld.trace.timeline.attribution import match
from glassworld.trace.timeline.intervals import nest

PART_ROWS = 1 << 18
TAG_WEIGHT = 7
_LAUNCHED = np.dtype([("at", "<i8"), *DEVICE_OP.descr])

Rows = npt.NDArray[np.void]


def parts(trace: Trace) -> Iterator[Trace]:
    """The stretches in order of time; the trace itself if one is enough.

    A GPU operation belongs to the stretch of its launch, however much later it ran.
    """
    number = math.ceil(_weight(trace) / PART_ROWS)
    cuts = _cuts(trace, number) if number > 1 else []
    if not cuts:
        yield trace
        return
    longest = _longest(trace, number)
    spanning, launched = _spanning(trace, longest), _by_launch(trace, number)
    allocated: dict[int, Rows] = {}
    for start, end in pairwise([-(2**62), *cuts, 2**62]):
        tags, carried = _tags(trace, longest, spanning, start, end)
        ops = launched.between(start, end)[list(DEVICE_OP.names or ())].astype(DEVICE_OP)
        yield replace(
            trace,
            tag_rows=Spool.of(tags),
            launch_rows=Spool.of(trace.launch_rows.between(start, end)),
            device_rows=Spool.of(ops),
            memory=Spool.of(_memory(trace, allocated, start, end)),
            ops=Spool.of(trace.ops.between(start, end)),
            python=Spool.of(trace.python.between(start, end)),
            carried=carried,
        )


def _weight(trace: Trace) -> int:
    """The rows of a trace; a tag takes the memory of several others once it is analysed."""
    return sum(map(len, trace.spools)) + TAG_WEIGHT * len(trace.tag_rows)


def _by_launch(trace: Trace, number: int) -> Spool:
    """The GPU operations with the moment of their launch, or of their start without one.

    Matched one range of correlation ids at a time, which is all that memory must hold.
    """
    spool = Spool(_LAUNCHED)
    if not len(trace.device_rows):
        return spool
    lowest, highest = 2**62, -(2**62)
    for rows in trace.device_rows.slices():
        lowest = min(lowest, int(rows["correlation"].min()))
        highest = max(highest, int(rows["correlation"].max()))
    edges = [lowest + (highest + 1 - lowest) * i // number for i in range(number + 1)]
    for low, high in pairwise(edges):
        ops, launches = (_correlated(s, low, high) for s in (trace.device_rows, trace.launch_rows))
        launch = match(ops, launches)
        rows = np.empty(len(ops), _LAUNCHED)
        for name in DEVICE_OP.names or ():
            rows[name] = ops[name]
        rows["at"] = ops["start"]
        rows["at"][launch >= 0] = launches["start"][launch[launch >= 0]]
        spool.append(rows)
    return spool


def _correlated(spool: Spool, low: int, high: int) -> Rows:
    found = [np.empty(0, spool.dtype)]
    for rows in spool.slices():
        found.append(rows[(rows["correlation"] >= low) & (rows["correlation"] < high)])
    return np.concatenate(found)


def _cuts(trace: Trace, number: int) -> list[int]:
    """Moments that split the rows about evenly and lie in no tag but the spanning ones."""
    batches = np.array([batch for spool in trace.spools for batch in spool.batches()])
    batches = batches[np.argsort(batches[:, 1], kind="stable")]
    rows = np.cumsum(batches[:, 0])
    at = np.searchsorted(rows, rows[-1] * np.arange(1, number) / number)
    moments = batches[at, 1]
    while True:
        moved = moments.copy()
        for tags in trace.tag_rows.slices():
            short = tags[tags["dur"] <= _longest(trace, number)]
            ends = short["start"] + short["dur"]
            for i, moment in enumerate(moved):
                open_then = (short["start"] < moment) & (ends > moment)
                moved[i] = ends[open_then].max(initial=moment)
        if (moved == moments).all():
            return sorted({int(moment) for moment in moments if trace.start < moment < trace.end})
        moments = moved


def _longest(trace: Trace, number: int) -> int:
    return (trace.end - trace.start) // number


def _spanning(trace: Trace, longest: int) -> Rows:
    """The tags that are too long to lie in one stretch, outer ones first, none outlasting them."""
    found = [tags[tags["dur"] > longest] for tags in trace.tag_rows.slices()]
    rows = np.concatenate([np.empty(0, trace.tag_rows.dtype), *found])
    forest = nest(rows)
    rows["dur"] = forest.end - rows["start"]
    return rows[np.lexsort((forest.depth, rows["start"]))]


def _tags(trace: Trace, longest: int, spanning: Rows, start: int, end: int) -> tuple[Rows, int]:
    """The tags of a stretch, pieces of spanning ones first; how many pieces began earlier."""
    inside = trace.tag_rows.between(start, end)
    inside = inside[inside["dur"] <= longest]
    ends = spanning["start"] + spanning["dur"]
    reaching = (spanning["start"] < end) & (ends > start)
    pieces, ends = spanning[reaching].copy(), np.minimum(ends[reaching], end)
    begun = pieces["start"] < start
    pieces["start"] = np.maximum(pieces["start"], start)
    pieces["dur"] = ends - pieces["start"]
    order: Ints = np.argsort(~begun, kind="stable")
    return np.concatenate([pieces[order], inside]), int(begun.sum())


def _memory(trace: Trace, allocated: dict[int, Rows], start: int, end: int) -> Rows:
    """The allocations of a stretch behind the last one of each device before it."""
    rows = trace.memory.between(start, end)
    made = np.concatenate([*allocated.values(), rows])
    for device in np.unique(rows["device"]).tolist():
        allocated[device] = rows[rows["device"] == device][-1:]
    return made
