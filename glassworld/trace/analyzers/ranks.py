"""Merge the traces of several ranks onto one clock, and find who waits for whom."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from glassworld.errors import TraceError
from glassworld.files import replacing
from glassworld.trace.analyzers.collectives.bandwidth import CollectiveRow, collective_rows
from glassworld.trace.analyzers.collectives.matching import CollectiveCall, matched_calls
from glassworld.trace.analyzers.collectives.records import RankCollectives, read_collectives
from glassworld.trace.analyzers.collectives.stragglers import (
    StragglerRow,
    straggler_rows,
    work_between,
)
from glassworld.trace.reading.formats import open_trace


@dataclass(frozen=True)
class RankTiming:
    """A rank's time in collectives; milliseconds. `waited_ms` is spent on slower ranks.

    `losses` says what of its file could not be read.
    """

    rank: int
    path: str
    offset_ms: float
    collectives: int
    collective_ms: float
    waited_ms: float
    losses: tuple[str, ...] = ()


@dataclass(frozen=True)
class RankReport:
    """What the traces of all ranks say of their collectives."""

    ranks: list[RankTiming]
    collectives: list[CollectiveRow]
    stragglers: list[StragglerRow]


def align_ranks(paths: list[Path]) -> list[RankTiming]:
    """Put the clocks of several ranks together and find who waits for whom.

    In a collective, a rank waits from its own start to the last rank's start.
    """
    return _timings([read_collectives(path) for path in _several(paths, "merge")])[0]


def report_ranks(paths: list[Path]) -> RankReport:
    """Return the waits, the bandwidth of each collective, and the ranks that come last."""
    ranks = [read_collectives(path) for path in _several(paths, "ranks")]
    timings, calls = _timings(ranks)
    stragglers = straggler_rows(calls, [work_between(path) for path in paths])
    return RankReport(timings, collective_rows(calls), stragglers)


def _several(paths: list[Path], command: str) -> list[Path]:
    if len(paths) < 2:
        raise TraceError(f"{command}: give at least two traces, one per rank")
    return paths


def _timings(ranks: list[RankCollectives]) -> tuple[list[RankTiming], list[CollectiveCall]]:
    offsets, calls = matched_calls(ranks)
    waits = [0.0] * len(ranks)
    for call in calls:
        for rank, start in zip(call.ranks, call.start, strict=True):
            waits[rank] += max(call.start) - start
    timings = [
        RankTiming(
            rank,
            str(of.path),
            offsets[rank] / 1e6,
            len(of),
            float((of.end - of.start).sum()) / 1e6,
            waits[rank] / 1e6,
            of.losses,
        )
        for rank, of in enumerate(ranks)
    ]
    return timings, calls


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
    for name in ("correlation", "wait_on_cuda_event_record_corr_id"):
        if isinstance(args, dict) and isinstance(args.get(name), int) and args[name] > 0:
            args[name] += rank << 40
    if isinstance(event.get("id"), int):
        event["id"] += rank << 40
