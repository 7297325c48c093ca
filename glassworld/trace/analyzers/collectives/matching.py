"""Match the collectives of several ranks, and put their clocks together."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from glassworld.trace.analyzers.collectives.alignment import Alignment, align
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


@dataclass(frozen=True)
class Matches:
    """The collectives of all ranks: for each, its position on every rank that has it.

    `notes` says of a rank what is not plain about its part.
    """

    positions: list[dict[int, int]]
    notes: dict[int, list[str]]


def match_positions(ranks: Sequence[RankCollectives]) -> Matches:
    """Match the collectives of each process group; messages from rank to rank match none.

    Where all ranks of a group recorded sequence numbers, equal ones match. Else the lists of two
    ranks are aligned by names, sizes and ends, and where they do not line up, the nth of one name
    is the same on all ranks.
    """
    members: dict[str, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    alone = []
    for rank, collectives in enumerate(ranks):
        for position, message in enumerate(collectives.messages):
            if message.name in POINT_TO_POINT:
                alone.append({rank: position})
            else:
                members[message.group][rank].append(position)
    positions: list[dict[int, int]] = []
    notes = defaultdict[int, list[str]](list)
    for group in members.values():
        keys = _by_sequence(ranks, group) or _by_alignment(ranks, group, notes)
        occurrences: dict[Key, dict[int, int]] = {}
        for rank, of_rank in group.items():
            for key, position in zip(keys[rank], of_rank, strict=True):
                occurrences.setdefault(key, {})[rank] = position
        positions += occurrences.values()
    shared = {rank for match in positions if len(match) > 1 for rank in match}
    for rank in {rank for match in positions for rank in match} - shared:
        notes[rank].append(_NOTHING_SHARED)
    return Matches([*positions, *alone], {rank: sorted(set(of)) for rank, of in notes.items()})


Key = tuple[Hashable, ...]
"""What a collective of one process group has in common on all ranks, and no other one has."""


def _by_sequence(
    ranks: Sequence[RankCollectives], group: dict[int, list[int]]
) -> dict[int, list[Key]] | None:
    """Return the keys by sequence numbers; None if some are missing."""
    names = set()
    for rank, positions in group.items():
        messages = [ranks[rank].messages[at] for at in positions]
        if any(message.sequence is None for message in messages):
            return None
        names.add(frozenset(message.group_name for message in messages))
    same_names = len(names) == 1  # groups of the same ranks count by themselves
    keys = {}
    for rank, positions in group.items():
        messages = [ranks[rank].messages[at] for at in positions]
        keys[rank] = _numbered(
            (m.group_name if same_names else "", m.sequence, m.name) for m in messages
        )
    return keys


def _by_alignment(
    ranks: Sequence[RankCollectives], group: dict[int, list[int]], notes: dict[int, list[str]]
) -> dict[int, list[Key]]:
    """Return the keys by what names, sizes and ends say; add to `notes` where they say little."""
    first, *others = sorted(group)
    messages = {rank: [ranks[rank].messages[at] for at in of] for rank, of in group.items()}
    ends = {rank: ranks[rank].end[of] for rank, of in group.items()}
    found = {r: align(messages[first], messages[r], ends[first], ends[r]) for r in others}
    for rank, alignment in found.items():
        names = [Counter(m.name for m in messages[r]) for r in (first, rank)]
        if note := _note(alignment, first, names[0] == names[1]):
            notes[rank].append(note)
    shifts = {first: 0} | {rank: alignment.shift for rank, alignment in found.items()}
    if any(shift is None for shift in shifts.values()):
        return {rank: _numbered((m.name,) for m in of) for rank, of in messages.items()}
    return {
        rank: [(i + (shifts[rank] or 0),) for i in range(len(of))] for rank, of in group.items()
    }


def _note(alignment: Alignment, first: int, as_many: bool) -> str:
    """Say what of an alignment with the `first` rank is not plain; "" if nothing is.

    `as_many`: both ranks have as many collectives of each name.
    """
    if alignment.shift is None:
        return (
            ""
            if as_many
            else f"its collectives do not line up with those of rank {first} by name and size; the "
            f"nth of one name counts as the same, and {_DOUBT}"
        )
    if not alignment.certain:
        return (
            f"its collectives fit those of rank {first} in several ways; they count as the same "
            f"from collective {max(0, alignment.shift)} of rank {first} on, and {_DOUBT}"
        )
    if not alignment.shift:
        return ""
    by = "names and sizes" if alignment.by_size else "the times at which they ended"
    when = "later" if alignment.shift > 0 else "earlier"
    return (
        f"it began to record {abs(alignment.shift)} collectives {when} than rank {first}, as "
        f"{by} tell"
    )


_NOTHING_SHARED = (
    "no other trace has any of its collectives: its clock cannot be told, and counts as if all "
    "traces started together"
)
_DOUBT = (
    "if the ranks began to record at different collectives, all times between ranks are wrong; "
    "start the profiler at the same step on all ranks"
)


def _numbered(keys: Iterable[Key]) -> list[Key]:
    """Return the keys with the number of equal ones before each."""
    count: Counter[Key] = Counter()
    numbered = []
    for key in keys:
        numbered.append((*key, count[key]))
        count[key] += 1
    return numbered


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


def matched_calls(
    ranks: Sequence[RankCollectives], matches: list[dict[int, int]]
) -> tuple[list[float], list[CollectiveCall]]:
    """Return the offsets of the ranks' clocks, and all collectives in order of their start."""
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
