"""Find which call launched a GPU operation where correlation ids alone do not tell it.

Without ids, flow events do: a flow starts ("s") in the operator or call that launches, and finishes
("f") in the operation. Exports of the profiler before Kineto have nothing else that connects the
two. If several processes use one id, as in files that a program merged from those of many ranks,
the rows of the operations tell whose they are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from glassworld.trace.reading.columns import (
    COPY,
    LAUNCH,
    Codes,
    EventTable,
    Ints,
    Mask,
)

FLOW = np.dtype(
    [("name", "<i4"), ("thread", "<i4"), ("category", "<i4"), ("at", "<i8"), ("id", "<i8")]
)
"""One end of a flow; `category` and `id` together tell which flow it is."""

FORWARD_BACKWARD = "fwdbwd"
"""The category of flows from an operator to its backward one; they launch nothing."""

Rows = npt.NDArray[np.void]


class Flows:
    """The flow events of a trace, kept until a correlation id shows that nobody needs them."""

    def __init__(self) -> None:
        self._ends = {"s": EventTable(FLOW), "f": EventTable(FLOW)}
        self._named_ids: dict[str, int] = {}

    def number(self, identifier: Any) -> int:
        """Return a number for the id of a flow, which may be any JSON value."""
        if isinstance(identifier, int) and abs(identifier) < 2**61:
            return identifier
        return 2**61 + self._named_ids.setdefault(str(identifier), len(self._named_ids))

    def add(self, phase: str, rows: Rows) -> None:
        """Take in the starts ("s") or the finishes ("f") of flows."""
        self._ends[phase].append(rows)

    def connect(self, launches: EventTable, ops: EventTable) -> tuple[EventTable, EventTable]:
        """Return the tables with correlation ids from the flows.

        The tables stay the same if operations have correlation ids already. A flow that starts in
        no call of the runtime becomes a call that takes no time.
        """
        starts, finishes = (self._ends[phase].to_array() for phase in "sf")
        device_ops = ops.to_array()
        if not len(starts) or not len(finishes) or (device_ops["correlation"] > 0).any():
            return launches, ops
        ends = np.concatenate([starts, finishes])
        _, flow = np.unique(ends[["category", "id"]], return_inverse=True)
        correlation = flow.astype(np.int64) + 1
        finished = _nearest(finishes["thread"], finishes["at"], device_ops)
        reached = finished >= 0
        device_ops["correlation"][finished[reached]] = correlation[len(starts) :][reached]
        calls = _with_correlation(launches.to_array(), starts, correlation[: len(starts)])
        return EventTable.from_rows(calls), EventTable.from_rows(device_ops)


def _with_correlation(calls: Rows, starts: Rows, correlation: Ints) -> Rows:
    """Return the runtime's calls with the ids of the flows that start in them, and new calls."""
    within = _nearest(starts["thread"], starts["at"], calls, around=True)
    taken: set[int] = set()
    alone = []
    for flow, call in enumerate(within.tolist()):
        if call < 0 or call in taken:
            alone.append(flow)
        else:
            taken.add(call)
            calls["correlation"][call] = correlation[flow]
    new = np.zeros(len(alone), LAUNCH)
    new["name"], new["thread"] = starts["name"][alone], starts["thread"][alone]
    new["start"], new["correlation"] = starts["at"][alone], correlation[alone]
    return np.concatenate([calls, new])


def _nearest(thread: Codes, at: Ints, ranges: Rows, around: bool = False) -> Codes:
    """Return for each time the range of its thread that holds it, else the next one; -1 for none.

    With `around`, only ranges that hold the time count. Times that are equal take the ranges that
    begin then one after another.
    """
    nearest = np.full(len(at), -1, dtype=np.int32)
    for number in np.unique(thread).tolist():
        mine = np.flatnonzero(thread == number)
        mine = mine[np.argsort(at[mine], kind="stable")]
        on_thread = np.flatnonzero(ranges["thread"] == number)
        if not len(on_thread):
            continue
        on_thread = on_thread[np.argsort(ranges["start"][on_thread], kind="stable")]
        start = ranges["start"][on_thread]
        end = start + ranges["dur"][on_thread]
        time = at[mine]
        low, high = np.searchsorted(start, time), np.searchsorted(start, time, "right")
        rank = np.arange(len(time)) - np.searchsorted(time, time)
        exact = np.minimum(low + rank, high - 1)  # the range that begins then, or the one before
        holds = (exact >= 0) & (end[exact] >= time)
        following = np.where(high < len(start), high, -1) if not around else np.full(len(time), -1)
        chosen = np.where(holds, exact, following)
        nearest[mine] = np.where(chosen >= 0, on_thread[chosen], -1)
    return nearest


_PROCESS_BITS = 40
_LAST_NUMBER = re.compile(r"\d+$")
_ONE_ROW = 0.1
"""A row has the work of several processes if this share of its operations repeats an id."""


@dataclass(frozen=True)
class _Calls:
    """The launch calls of one process: their ids, sorted, and the first call of each."""

    ids: Ints
    start: Ints
    copies: Mask
    graphs: Mask

    @classmethod
    def of(cls, rows: Rows, names: list[str]) -> _Calls:
        """Return the calls of these rows (dtype `LAUNCH`)."""
        rows = rows[np.argsort(rows["start"], kind="stable")]
        ids, first = np.unique(rows["correlation"], return_index=True)
        called = [names[name].lower() for name in rows["name"][first].tolist()]
        copies = np.array(["memcpy" in name for name in called])
        graphs = np.array(["graphlaunch" in name for name in called])
        return cls(ids, rows["start"][first], copies, graphs)

    def starts(self, ops: Rows) -> tuple[Ints, Mask]:
        """Return the call with each operation's id, and whether it began before the operation."""
        at = np.minimum(np.searchsorted(self.ids, ops["correlation"]), len(self.ids) - 1)
        return at, (self.ids[at] == ops["correlation"]) & (self.start[at] <= ops["start"])


class SharedIds:
    """Correlation ids that several processes of one file use, made ids of one process each.

    The first process keeps its ids, those of the others get the process in their upper bits.
    `notes` says what of this is a guess.
    """

    def __init__(
        self, threads: list[tuple[Any, Any]], names: list[str], launches: Rows, ops: Rows
    ) -> None:
        self.notes: list[str] = []
        self._threads = threads
        numbers = _process_numbers(threads)
        process = numbers[launches["thread"]]
        having = np.unique(process[launches["correlation"] > 0])
        self._pids = [threads[int(np.argmax(numbers == number))][0] for number in having]
        self._calls = [
            _Calls.of(launches[(process == number) & (launches["correlation"] > 0)], names)
            for number in having
        ]
        owner = np.searchsorted(having, process)
        self.launches, self.ops = launches.copy(), ops.copy()
        self.launches["correlation"] = _moved(launches["correlation"], owner)
        self._owners = self._find_owners(ops, numbers)
        self.ops["correlation"] = _moved(ops["correlation"], self._owners)

    def _find_owners(self, ops: Rows, numbers: Codes) -> Ints:
        """Return the process that launched each operation; 0 for what no call launched."""
        launched = np.zeros(len(ops), dtype=bool)
        for calls in self._calls:
            launched |= calls.starts(ops)[1]
        groups = np.stack([numbers[ops["thread"]], ops["device"]], axis=1)
        rows, group = np.unique(groups, axis=0, return_inverse=True)
        members = [np.flatnonzero(group.ravel() == g) for g in range(len(rows))]
        members = [of for of in members if launched[of].any()]
        members.sort(key=lambda of: int(of[0]))  # in the order of the file
        found = [self._candidates(ops[of]) for of in members]
        known = {of[0] for of in found if len(of) == 1}
        left = [p for p in range(len(self._calls)) if p not in known]
        tied = [i for i, of in enumerate(found) if len(of) > 1]
        if len(tied) == len(left) and all(set(left) <= set(found[i]) for i in tied):
            if len(left) > 1:
                self.notes.append(
                    "the processes in this file use the same correlation ids, and only the order "
                    "of the events in it tells which process launched which GPU operations"
                )
            for i, process in zip(tied, left, strict=True):
                found[i] = [process]
        owners, guessed = np.zeros(len(ops), dtype=np.int64), 0
        for of, candidates in zip(members, found, strict=True):
            owners[of] = candidates[0] if len(candidates) == 1 else self._latest(ops[of])
            guessed += len(of) if len(candidates) != 1 else 0
        if guessed:
            self.notes.append(
                f"{guessed} GPU operations have correlation ids that several processes use, in "
                "rows that do not tell whose they are: each counts as launched by the last call "
                "of its id before it; analyze the processes' own files"
            )
        return owners

    def _candidates(self, ops: Rows) -> list[int]:
        """Return the processes that the operations of one row fit best; none of a shared row."""
        everyone = range(len(self._calls))
        prefix = _LAST_NUMBER.sub("", str(self._threads[int(ops["thread"][0])][0]))
        named = [p for p in everyone if _LAST_NUMBER.sub("", str(self._pids[p])) == prefix]
        candidates = named if prefix and named else list(everyone)
        ops = ops[ops["correlation"] > 0]
        scores, repeated = [], 0
        for p in candidates:
            at, fits = self._calls[p].starts(ops)
            alike = fits & (self._calls[p].copies[at] == (ops["kind"] == COPY))
            scores.append((int(fits.sum()), int(alike.sum())))
            single = ops["correlation"][fits & ~self._calls[p].graphs[at]]
            repeated = max(repeated, len(single) - len(np.unique(single)))
        if repeated > _ONE_ROW * len(ops) and len(candidates) > 1:
            return []
        return [p for p, score in zip(candidates, scores, strict=True) if score == max(scores)]

    def _latest(self, ops: Rows) -> Ints:
        """Return the process whose call with the operation's id is the last before it."""
        latest, owners = np.full(len(ops), -(2**62)), np.zeros(len(ops), dtype=np.int64)
        for p, calls in enumerate(self._calls):
            at, fits = calls.starts(ops)
            later = fits & (calls.start[at] > latest)
            owners[later], latest[later] = p, calls.start[at][later]
        return owners

    def of_waits(self, rows: Rows) -> Rows:
        """Return waits (dtype `SYNC`) with the ids of the process that has their device.

        Where several have it, they name no call.
        """
        rows, devices = rows.copy(), self.ops["device"]
        for device in np.unique(rows["device"]).tolist():
            owners, of = np.unique(self._owners[devices == device]), rows["device"] == device
            for column in ("correlation", "recorded_by"):
                owner = int(owners[0]) if len(owners) == 1 else 0
                moved = _moved(rows[column][of], np.full(int(of.sum()), owner))
                rows[column][of] = moved if len(owners) == 1 else -1
        return rows

    def of_labels(self, ops: Rows, rows: Rows) -> Rows:
        """Return labels (dtype `LABELED_OP`) with the ids of their operations, `ops` as read."""
        columns = ("correlation", "start", "stream")
        moved = dict(
            zip(
                zip(*(ops[name].tolist() for name in columns), strict=True),
                self.ops["correlation"].tolist(),
                strict=True,
            )
        )
        rows = rows.copy()
        keys = zip(*(rows[name].tolist() for name in columns), strict=True)
        rows["correlation"] = [moved.get(key, -1) for key in keys]
        return rows


def shares_ids(threads: list[tuple[Any, Any]], launches: EventTable) -> bool:
    """Return whether the ids of one process's calls lie among those of another one."""
    numbers, spans = _process_numbers(threads), dict[int, tuple[int, int]]()
    for rows in launches.slices():
        process, ids = numbers[rows["thread"]], rows["correlation"]
        for number in np.flatnonzero(np.bincount(process)).tolist():
            mine = ids[(process == number) & (ids > 0)]
            low, high = spans.get(number, (2**62, -1))
            low, high = int(mine.min(initial=low)), int(mine.max(initial=high))
            spans[number] = low, high
    ordered = sorted(spans.values())
    return any(low <= high for (_, high), (low, _) in pairwise(ordered))


def _process_numbers(threads: list[tuple[Any, Any]]) -> Codes:
    """Return a number for the process of each thread."""
    number: dict[Any, int] = {}
    return np.array([number.setdefault(pid, len(number)) for pid, _ in threads], dtype=np.int32)


def _moved(ids: Ints, process: Ints) -> Ints:
    """Return correlation ids of these processes; those that stand for none stay as they are."""
    moved = (ids & ~(-1 << _PROCESS_BITS)) + (process << _PROCESS_BITS)
    return np.where((ids > 0) & (process > 0), moved, ids)
