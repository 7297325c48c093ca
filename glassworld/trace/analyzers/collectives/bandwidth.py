"""Compute the bandwidth of collectives, and the skew with which ranks arrive at them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from statistics import fmean, median

from glassworld.trace.analyzers.collectives.matching import CollectiveCall
from glassworld.trace.timeline.rows import largest_first


@dataclass(frozen=True)
class CollectiveRow:
    """All calls of a collective with one message size, type and number of ranks.

    `ms` is the median time; bandwidths are GB/s (10^9 bytes) at that time. What the trace does not
    record is None; so are the skews of calls that one trace alone has.
    """

    name: str
    dtype: str | None
    bytes: int | None
    group_size: int | None
    calls: int
    ms: float
    algorithm_gbps: float | None
    bus_gbps: float | None
    mean_skew_ms: float | None
    max_skew_ms: float | None


def bus_factor(name: str, ranks: int) -> float:
    """Return bus bandwidth over algorithm bandwidth, by PERFORMANCE.md of nccl-tests."""
    if name == "all_reduce":
        return 2 * (ranks - 1) / ranks
    if name in ("all_gather", "reduce_scatter", "all_to_all", "gather", "scatter"):
        return (ranks - 1) / ranks
    return 1.0


def collective_rows(calls: list[CollectiveCall]) -> list[CollectiveRow]:
    """Return the collectives by name, type, size and ranks; those that take most time first."""
    alike: defaultdict[tuple[str, str | None, int | None, int | None], list[CollectiveCall]]
    alike = defaultdict(list)
    for call in calls:
        m = call.message
        alike[m.name, m.dtype, m.bytes, m.group_size].append(call)
    rows = []
    for (name, dtype, size, ranks), members in alike.items():
        ns = median(call.transfer_ns for call in members)
        algorithm = size / ns if size and ns > 0 else None
        bus = algorithm * bus_factor(name, ranks) if algorithm and ranks else None
        skews = [call.skew_ns / 1e6 for call in members if len(call.ranks) > 1]
        rows.append(
            CollectiveRow(
                name,
                dtype,
                size,
                ranks,
                len(members),
                ns / 1e6,
                algorithm,
                bus,
                fmean(skews) if skews else None,
                max(skews) if skews else None,
            )
        )
    return sorted(
        rows, key=lambda r: largest_first(r.ms * r.calls, r.name, str(r.dtype), r.bytes or 0)
    )
