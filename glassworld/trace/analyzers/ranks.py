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
from glassworld.trace.analyzers.collectives.matching import (
    CollectiveCall,
    match_positions,
    matched_calls,
)
from glassworld.trace.analyzers.collectives.records import RankCollectives, read_collectives
from glassworld.trace.analyzers.collectives.stragglers import (
    StragglerRow,
    straggler_rows,
    work_between,
)
from glassworld.trace.reading.events import exact_number
from glassworld.trace.reading.formats import open_trace

_CORRELATION_IDS = ("correlation", "wait_on_cuda_event_record_corr_id")


@dataclass(frozen=True)
class RankTiming:
    """A rank's time in collectives; milliseconds. `waited_ms` is spent on slower ranks.

    `losses` says what of its file could not be read, `notes` how its collectives were matched
    where that is not plain.
    """

    rank: int
    path: str
    offset_ms: float
    collectives: int
    collective_ms: float
    waited_ms: float
    losses: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


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
    matches = match_positions(ranks)
    offsets, calls = matched_calls(ranks, matches.positions)
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
            tuple(matches.notes.get(rank, ())),
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
    """Move an event to the first rank's clock; one whose time is no number keeps it."""
    at = exact_number(event.get("ts"))
    if at is not None:
        event["ts"] = at - Decimal(f"{offset_us:.3f}")
    event["pid"] = f"rank {rank}: {event.get('pid')}"
    _move_id(event, "id", rank, least=0)
    if isinstance(args := event.get("args"), dict):
        for name in _CORRELATION_IDS:
            _move_id(args, name, rank, least=1)  # 0 and -1 stand for none


def _move_id(fields: dict[str, Any], name: str, rank: int, least: int) -> None:
    """Make an id, from the `least` on, one that no other rank has."""
    number = exact_number(fields.get(name))
    if number is not None and number >= least:
        fields[name] = int(number) + (rank << 40)
    elif number is None and isinstance(fields.get(name), str):
        fields[name] = f"rank {rank}: {fields[name]}"
