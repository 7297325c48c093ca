"""Merge the traces of several ranks onto one clock, and find who waits for whom."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from glassworld.errors import TraceError
from glassworld.files import replacing
from glassworld.trace.reading.columns import COLLECTIVE, DEVICE_OP, Floats
from glassworld.trace.reading.formats import open_trace
from glassworld.trace.reading.reader import read_trace


@dataclass(frozen=True)
class RankTiming:
    """A rank's time in collectives; milliseconds. `waited_ms` is spent on slower ranks."""

    rank: int
    path: str
    offset_ms: float
    collectives: int
    collective_ms: float
    waited_ms: float


def align_ranks(paths: list[Path]) -> list[RankTiming]:
    """Put the clocks of several ranks together and find who waits for whom.

    A collective ends on all ranks at once, so the median difference of the ends of matching
    collectives is the offset between two clocks; without collectives the traces start together.
    In a collective, a rank waits from its own start to the last rank's start.
    """
    if len(paths) < 2:
        raise TraceError("merge: give at least two traces, one per rank")
    starts, ends, begins = zip(*map(_collectives, paths), strict=True)
    shared = min(map(len, starts))
    if shared:
        offsets = [float(np.median(end[:shared] - ends[0][:shared])) for end in ends]
        aligned = np.stack([s[:shared] - o for s, o in zip(starts, offsets, strict=True)])
        waits = (aligned.max(axis=0) - aligned).sum(axis=1)
    else:
        offsets = [float(begin - begins[0]) for begin in begins]
        waits = np.zeros(len(paths))
    return [
        RankTiming(
            rank,
            str(path),
            offsets[rank] / 1e6,
            len(starts[rank]),
            float((ends[rank] - starts[rank]).sum()) / 1e6,
            float(waits[rank]) / 1e6,
        )
        for rank, path in enumerate(paths)
    ]


def _collectives(path: Path) -> tuple[Floats, Floats, int]:
    """Return starts and ends of a rank's collectives, sorted, and its trace's start; ns."""
    trace = read_trace(path)
    selected = [rows[rows["kind"] == COLLECTIVE] for rows in trace.device_rows.slices()]
    rows = np.concatenate([np.empty(0, DEVICE_OP), *selected])
    rows = rows[np.argsort(rows["start"], kind="stable")]
    start = rows["start"].astype(np.float64)
    return start, start + rows["dur"], trace.start


def merge_ranks(paths: list[Path], output: Path, ranks: list[RankTiming]) -> int:
    """Write one trace with every rank's events on the first rank's clock; return their number.

    Correlation and flow ids stay distinct between ranks; process ids get the rank in front.
    """
    count, encoder = 0, msgspec.json.Encoder(decimal_format="number")
    with replacing(output) as partial, partial.open("wb") as file:
        file.write(b'{"schemaVersion": 1, "traceEvents": [\n')
        for rank, path in zip(ranks, paths, strict=True):
            for event in _raw_events(path):
                _move_to_rank(event, rank.rank, rank.offset_ms * 1000)
                file.write(b",\n" if count else b"")
                file.write(encoder.encode(event))
                count += 1
        file.write(b"\n]}\n")
    return count


def _raw_events(path: Path) -> Iterator[dict[str, Any]]:
    return (event for events in open_trace(path).raw() for event in events)


def _move_to_rank(event: dict[str, Any], rank: int, offset_us: float) -> None:
    if "ts" in event:
        event["ts"] = Decimal(event["ts"]) - Decimal(round(offset_us, 3))
    event["pid"] = f"rank {rank}: {event.get('pid')}"
    args = event.get("args")
    if isinstance(args, dict) and isinstance(args.get("correlation"), int):
        args["correlation"] += rank << 40
    if isinstance(event.get("id"), int):
        event["id"] += rank << 40
