"""Sum up the rows of tags by path over the chunks of a trace.

A chunk has the operations launched in it. Some run beside those of later chunks, and an instance
that spans chunks has a piece in each, so the busy times and spans of chunks do not simply add up:
what two chunks share is counted once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from glassworld.trace.reading.columns import Codes, Ints, Mask
from glassworld.trace.timeline.analysis import Analysis
from glassworld.trace.timeline.intervals import merge_intervals
from glassworld.trace.timeline.rows import TagRow, exact_ms
from glassworld.trace.timeline.stats import GroupedMedians, group_members
from glassworld.trace.timeline.tag_tree import PathGroups

TagPath = tuple[str, ...]

MOST_PATHS = 20_000
"""Most paths that are summed up."""

_NUMBERS = [field.name for field in fields(TagRow) if field.type in ("int", "float")]


class PathSums:
    """The rows of each path, added up; `dropped` counts the instances that found no room."""

    def __init__(self) -> None:
        self.dropped = 0
        self._rows: dict[TagPath, TagRow] = {}
        self._numbers: dict[TagPath, int] = {}
        self._shared = SharedTime()
        self._delays = GroupedMedians()

    def add(
        self, chunk: Analysis, groups: PathGroups, labels: list[str], rows: Iterable[TagRow]
    ) -> Ints:
        """Add the rows of a chunk, one per group in order.

        Return the number of the path of each group behind that of no path, which is -1 as is that
        of a path without room.
        """
        numbers = [-1]
        for row in self._shared.correct(chunk, groups, labels, rows):
            known = self._rows.get(row.path)
            if known is None and len(self._rows) >= MOST_PATHS:
                self.dropped += row.instances
            else:
                self._rows[row.path] = _sum_rows(known, row) if known else row
                self._numbers.setdefault(row.path, len(self._numbers))
            numbers.append(self._numbers.get(row.path, -1))
        number = np.array(numbers, dtype=np.int64)
        tagged = chunk.ops.tag >= 0
        of = number[groups.of[chunk.ops.tag[tagged]] + 1] if len(groups) else number[:0]
        self._delays.add(of[of >= 0], chunk.ops.delay[tagged][of >= 0])
        return number

    def rows(self, label_numbers: dict[str, int]) -> Iterator[TagRow]:
        """Yield the sums in the order of an analysis at once."""
        delays = self._delays.middle()
        for path in self._in_order(label_numbers):
            delay = sum(delays.get(self._numbers[path], (0, 0))) / 2
            yield replace(self._rows[path], launch_delay_ms=delay / 1e6)

    def positions(self, label_numbers: dict[str, int]) -> Ints:
        """Return the place in `rows` of each number that `add` returned."""
        positions = np.zeros(len(self._rows), dtype=np.int64)
        for position, path in enumerate(self._in_order(label_numbers)):
            positions[self._numbers[path]] = position
        return positions

    def _in_order(self, label_numbers: dict[str, int]) -> list[TagPath]:
        """Return the paths by depth, then by parent and label."""
        position: dict[TagPath, int] = {}
        by_depth: dict[int, list[TagPath]] = {}
        for path in self._rows:
            by_depth.setdefault(len(path), []).append(path)
        for depth in sorted(by_depth):
            for path in sorted(
                by_depth[depth],
                key=lambda path: (position.get(path[:-1], -1), label_numbers[path[-1]]),
            ):
                position[path] = len(position)
        return list(position)


def _sum_rows(a: TagRow, b: TagRow) -> TagRow:
    """Add two rows of one path, but for their median delays."""
    return TagRow(
        path=a.path,
        name=a.name if a.name == b.name else a.path[-1],
        pattern=a.pattern,
        **{name: _sum(getattr(a, name), getattr(b, name)) for name in _NUMBERS},
    )


def _sum(a: Any, b: Any) -> Any:
    """Add two counts, or two times."""
    return exact_ms(a + b) if isinstance(a, float) else a + b


_NOTHING = np.empty((0, 2), dtype=np.int64)


def _length(intervals: Ints) -> int:
    return int((intervals[:, 1] - intervals[:, 0]).sum())


class SharedTime:
    """Corrects the rows of each chunk by what earlier chunks have counted already."""

    def __init__(self) -> None:
        self._busy: dict[TagPath, Ints] = {}
        self._span: dict[TagPath, Ints] = {}
        self._open: dict[tuple[int, TagPath], int] = {}

    def correct(
        self, chunk: Analysis, groups: PathGroups, labels: list[str], rows: Iterable[TagRow]
    ) -> Iterator[TagRow]:
        """Yield the rows of a chunk, one per group in order, with what they add to earlier ones."""
        settled = _settled_ns(chunk)
        paths: dict[int, TagPath] = {}

        def path(group: int) -> TagPath:
            return paths.setdefault(group, groups.path(group, labels))

        busy = self._add(self._busy, self._operations(chunk, groups, settled), path, settled)
        spans = self._spans(chunk, groups, path, settled)
        reopened = min([settled, *self._open.values()])  # a next piece may reach back so far
        span = self._add(self._span, spans, path, reopened)
        for g, row in enumerate(rows):
            busy_ms = exact_ms(row.gpu_busy_ms - busy.get(g, 0) / 1e6)
            span_ms = exact_ms(row.gpu_span_ms - span.get(g, 0) / 1e6)
            idle_ms = exact_ms(span_ms - busy_ms)
            yield replace(row, gpu_busy_ms=busy_ms, gpu_span_ms=span_ms, gpu_idle_ms=idle_ms)

    def _add(
        self, known: dict[TagPath, Ints], parts: _Parts, path: Callable[[int], TagPath], after: int
    ) -> dict[int, int]:
        """Return how much of each group's time is in `known`, and take in the group's own."""
        counted = {}
        of_group = {path(g): (g, intervals) for g, intervals in parts.intervals.items()}
        for key in {*known, *of_group}:
            group, own = of_group.get(key, (-1, _NOTHING))
            earlier, mine = known.get(key, _NOTHING), merge_intervals(own)
            together = merge_intervals(np.concatenate([earlier, mine]))
            if group >= 0:
                added = _length(together) - _length(earlier)
                counted[group] = parts.counted.get(group, _length(mine)) - added
            late = together[together[:, 1] > after]
            known[key] = late
            if not len(late):
                del known[key]
        return counted

    def _operations(self, chunk: Analysis, groups: PathGroups, settled: int) -> _Parts:
        """Return the operations of each group that other chunks may have some beside."""
        until = max((int(late[-1, 1]) for late in self._busy.values()), default=-(2**62))
        ops = chunk.ops
        shared: Mask = (ops.rows["start"] < until) | (ops.end > settled)
        chosen = np.flatnonzero(shared & (ops.tag >= 0))
        tag, members = ops.tag[chosen], []
        while len(chosen):
            intervals = np.stack([ops.rows["start"][chosen], ops.end[chosen]], axis=1)
            members.append((groups.of[tag], intervals))
            tag = chunk.tree.forest.parent[tag]
            chosen, tag = chosen[tag >= 0], tag[tag >= 0]
        return _Parts(_by_group(members), {})

    def _spans(
        self, chunk: Analysis, groups: PathGroups, path: Callable[[int], TagPath], settled: int
    ) -> _Parts:
        """Return the spans of the instances of each group that other chunks share."""
        tree, device = chunk.tree, chunk.device
        first, last = device.first.copy(), device.last.copy()
        ends = tree.rows["start"] + tree.rows["dur"]
        still_open = {}
        for i in range(chunk.trace.carried):
            key = (int(tree.rows["thread"][i]), path(int(groups.of[i])))
            if key in self._open:
                first[i] = min(int(first[i]), self._open[key])
                last[i] = max(int(last[i]), self._open[key])
        open_at_end = ends == ends.max(initial=0)
        for i in np.flatnonzero(open_at_end).tolist():
            if last[i] >= first[i]:
                key = (int(tree.rows["thread"][i]), path(int(groups.of[i])))
                still_open[key] = int(last[i])
        self._open = still_open
        until = max((int(late[-1, 1]) for late in self._span.values()), default=-(2**62))
        carried = np.arange(len(tree)) < chunk.trace.carried
        shared: Mask = (first < until) | (last > settled) | carried | open_at_end
        has_work: Mask = last >= first
        worked = np.flatnonzero(has_work & np.isin(groups.of, groups.of[has_work & shared]))
        extended = _by_group([(groups.of[worked], np.stack([first[worked], last[worked]], axis=1))])
        own = np.flatnonzero(device.kernels)
        plain = _by_group([(groups.of[own], np.stack([device.first[own], device.last[own]], 1))])
        counted = {g: _length(merge_intervals(plain.get(g, _NOTHING))) for g in extended}
        return _Parts(extended, counted)


class SpanningInstances:
    """Finds the busy time that instances with a piece in several chunks share between chunks."""

    def __init__(self) -> None:
        self._late: dict[tuple[int, TagPath], Ints] = {}

    def counted_before(self, chunk: Analysis) -> dict[int, int]:
        """Return for each piece how many of its busy nanoseconds earlier chunks have counted."""
        tree, settled = chunk.tree, _settled_ns(chunk)
        operations, late, before = self._operations(chunk), {}, {}
        for piece in range(chunk.trace.pieces):
            path = tree.by_name.path(int(tree.by_name.of[piece]), tree.names)
            key = (int(tree.rows["thread"][piece]), path)
            earlier = self._late.get(key, _NOTHING) if piece < chunk.trace.carried else _NOTHING
            mine = merge_intervals(operations.get(piece, _NOTHING))
            together = merge_intervals(np.concatenate([earlier, mine]))
            before[piece] = _length(earlier) + _length(mine) - _length(together)
            late[key] = together[together[:, 1] > settled]
        self._late = late
        return before

    def _operations(self, chunk: Analysis) -> dict[int, Ints]:
        """Return the intervals of all operations in each piece."""
        ops, members = chunk.ops, []
        chosen = np.flatnonzero(ops.tag >= 0)
        tag = ops.tag[chosen]
        while len(chosen):
            of_piece = tag < chunk.trace.pieces
            ran = chosen[of_piece]
            intervals = np.stack([ops.rows["start"][ran], ops.end[ran]], axis=1)
            members.append((tag[of_piece], intervals))
            tag = chunk.tree.forest.parent[tag]
            chosen, tag = chosen[tag >= 0], tag[tag >= 0]
        return _by_group(members)


@dataclass(frozen=True)
class _Parts:
    """Intervals of groups, and how much of each its chunk has counted (default: all of it)."""

    intervals: dict[int, Ints]
    counted: dict[int, int]


def _by_group(members: list[tuple[Codes, Ints]]) -> dict[int, Ints]:
    """Collect intervals by group."""
    if not members:
        return {}
    group = np.concatenate([of for of, _ in members])
    intervals = np.concatenate([part for _, part in members])
    return {int(group[of[0]]): intervals[of] for of in group_members(group)}


def _settled_ns(chunk: Analysis) -> int:
    """Return a time that nothing launched in later chunks begins before."""
    ops = chunk.ops
    times = [
        *(rows["start"].max(initial=-(2**62)) for rows in (chunk.trace.launches, chunk.tree.rows)),
        ops.rows["start"][ops.launch < 0].max(initial=-(2**62)),
    ]
    return int(max(times))
