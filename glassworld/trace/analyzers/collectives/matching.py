"""Match the collectives of several ranks, and put their clocks together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from glassworld.trace.analyzers.collectives.records import (
    POINT_TO_POINT,
    Message,
    RankCollectives,
)


@dataclass(frozen=True)
class CollectiveCall:
    """One collective on the ranks whose traces have it: start and end on the common clock, ns.

    `position` is the collective's among those of each rank, in the order of `ranks`.
    """

    message: Message
    ranks: tuple[int, ...]
    position: tuple[int, ...]
    start: tuple[float, ...]
    end: tuple[float, ...]

    @property
    def skew_ns(self) -> float:
        """The time from the first rank's arrival to the last one's."""
        return max(self.start) - min(self.start)

    @property
    def transfer_ns(self) -> float:
        """The shortest duration: of the rank that came last. The others' include waiting."""
        return min(end - start for start, end in zip(self.start, self.end, strict=True))


def match_positions(ranks: Sequence[RankCollectives]) -> list[dict[int, int]]:
    """Return, for each collective, its position on each rank that has it.

    The nth collective of one name in one process group is the same on all ranks. Messages from
    rank to rank match none.
    """
    occurrences: dict[tuple[str, str, int], dict[int, int]] = {}
    alone = []
    for rank, collectives in enumerate(ranks):
        count: dict[tuple[str, str], int] = defaultdict(int)
        for position, message in enumerate(collectives.messages):
            if message.name in POINT_TO_POINT:
                alone.append({rank: position})
                continue
            key = (message.name, message.group)
            occurrences.setdefault((*key, count[key]), {})[rank] = position
            count[key] += 1
    return [*occurrences.values(), *alone]


def clock_offsets(ranks: Sequence[RankCollectives], matches: list[dict[int, int]]) -> list[float]:
    """Return how far each rank's clock is ahead of the first one's; ns.

    A collective ends on all ranks at once, so the median difference of the ends of those that two
    ranks share is the offset between their clocks. A rank that shares none, with the first or with
    one that does, starts when the first does.
    """
    offsets: list[float | None] = [0.0] + [None] * (len(ranks) - 1)
    known = [0]
    for of in known:
        base = offsets[of] or 0.0
        for rank, collectives in enumerate(ranks):
            shared = [m for m in matches if of in m and rank in m] if offsets[rank] is None else []
            if shared:
                ends = [float(collectives.end[m[rank]] - ranks[of].end[m[of]]) for m in shared]
                offsets[rank] = base + float(np.median(ends))
                known.append(rank)
    return [
        float(collectives.begin - ranks[0].begin) if offset is None else offset
        for offset, collectives in zip(offsets, ranks, strict=True)
    ]


def matched_calls(ranks: Sequence[RankCollectives]) -> tuple[list[float], list[CollectiveCall]]:
    """Return the offsets of the ranks' clocks, and all collectives in order of their start."""
    matches = match_positions(ranks)
    offsets = clock_offsets(ranks, matches)
    calls = []
    for match in matches:
        members = sorted(match)
        first = members[0]
        times = [
            [float(getattr(ranks[r], which)[match[r]]) - offsets[r] for r in members]
            for which in ("start", "end")
        ]
        message = ranks[first].messages[match[first]]
        positions = tuple(match[r] for r in members)
        calls.append(
            CollectiveCall(message, tuple(members), positions, tuple(times[0]), tuple(times[1]))
        )
    return offsets, sorted(calls, key=lambda call: min(call.start))
