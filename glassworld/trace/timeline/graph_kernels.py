"""Give the kernels of replayed GPU graphs the tags of a pass that ran without the graph.

A graph's replay is one call, in which no tag can be opened. But its kernels always run in one
order. If the same kernels, in the same order, were also launched one by one, in this trace or in
one of the capture, then the tags around those launches name the kernels of every replay. The names
must agree from the first kernel to the last. Where there is no such pass, the labels count that
torch's `mark_kernels` gave to kernels during the capture, if somebody merged them into the trace.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from glassworld.trace.reading.columns import DEVICE_OP, LAUNCH, RANGE, Codes, Ints, Mask, Trace
from glassworld.trace.timeline.attribution import match_launches
from glassworld.trace.timeline.intervals import (
    IntervalForest,
    innermost_ranges,
    nest_intervals,
)
from glassworld.trace.timeline.tag_names import parse_tag_name

MOST_EAGER = 1 << 20  # launch calls in which passes are looked for
MOST_OCCURRENCES = 64  # of the same kernels; all must have the same tags inside
_MODULE = re.compile(r"nn\.Module: ")
_CLOSE, _KERNEL = -1, -2
_SEPARATOR = -1

NO_PASS = "no pass outside a graph runs the same kernels in the same order"
AMBIGUOUS = "several passes with other tags run the same kernels"
NO_TAGS = "the pass outside the graph has no tags of its own"
TOO_SHORT = "the launch call is too short to hold the tags"

Rows = npt.NDArray[np.void]
Steps = tuple[int, ...]
"""What happens in a pass: a range of this name opens, the last one closes, a kernel runs."""


def graph_launch_mask(trace: Trace) -> Mask:
    """Mark the names of calls that launch a GPU graph."""
    return np.array(["graphlaunch" in name.lower() for name in trace.names], dtype=bool)


@dataclass(frozen=True)
class GraphNaming:
    """How many graph launches and kernels of them have the tags of a pass.

    `labeled` graph launches have labels instead; `unnamed` counts those with neither by reason.
    """

    launches: int = 0
    kernels: int = 0
    unnamed: Counter[str] = field(default_factory=Counter)
    labeled: int = 0

    def plus(self, other: GraphNaming) -> GraphNaming:
        """Add the numbers of another chunk."""
        unnamed = self.unnamed + other.unnamed
        return GraphNaming(
            self.launches + other.launches,
            self.kernels + other.kernels,
            unnamed,
            self.labeled + other.labeled,
        )


@dataclass(frozen=True)
class GraphTags:
    """Tags (dtype `RANGE`) within the calls that launch graphs.

    `moment` is when each operation, in the order given, counts as launched; -1: when its call
    begins. The tags share their call's time evenly: its length says nothing about them.
    """

    tags: Rows
    moment: Ints
    naming: GraphNaming


@dataclass(frozen=True)
class _EagerOps:
    """Operations launched one by one, by thread and in order; `names` are of the analyzed trace.

    Between two threads stands a separator. `inner` is the innermost of `ranges` around each
    launch; `first` and `last` are the positions of the operations within each range.
    """

    names: Codes
    inner: Codes
    range_names: Codes
    forest: IntervalForest
    first: Ints
    last: Ints

    def path(self, position: int) -> list[int]:
        """Return the ranges around an operation, the outermost first."""
        path = []
        at = int(self.inner[position])
        while at >= 0:
            path.append(at)
            at = int(self.forest.parent[at])
        return path[::-1]

    def whole(self, begin: int, count: int) -> list[int]:
        """Return the ranges that hold these operations and no others, the outermost first.

        Without any, equal layers may have matched from the middle of one pass into the next.
        """
        end = begin + count - 1
        named = [r for r in self.path(begin) if self.range_names[r] >= 0]
        return [r for r in named if self.first[r] == begin and self.last[r] == end]


class EagerPasses:
    """The operations of one or more traces that were launched one by one, to name graphs after."""

    def __init__(self, names: list[str], sources: list[_EagerOps]) -> None:
        self.names = names
        self._sources = sources
        self._known: dict[tuple[bytes, frozenset[str]], _Layout | str] = {}

    def expand(self, trace: Trace, rows: Rows) -> GraphTags | None:
        """Return the tags within the graph launches of a trace, or of a chunk; None without any.

        `rows` are its GPU operations.
        """
        launch = match_launches(rows, trace.launches)
        is_graph = graph_launch_mask(trace)[trace.launches["name"]]
        if not is_graph.any():
            return None
        members = np.flatnonzero((launch >= 0) & is_graph[launch])
        if not len(members):
            return None
        members = members[np.lexsort((rows["start"][members], launch[members]))]
        by_call = np.split(members, np.flatnonzero(np.diff(launch[members])) + 1)
        calls = trace.launches[[launch[of_call[0]] for of_call in by_call]]
        tags, moment = [np.empty(0, RANGE)], np.full(len(rows), -1)
        launches, kernels, labeled, unnamed = 0, 0, 0, Counter[str]()
        labels = _labels(trace, rows)
        for call, of_call, around in zip(
            calls, by_call, _patterns_around(trace, calls), strict=True
        ):
            layout = self._find_layout(rows["name"][of_call], around)
            by_label = isinstance(layout, str) and bool((labels[of_call] >= 0).any())
            if by_label:
                layout = _Layout.from_steps(_label_steps(labels[of_call].tolist()))
            if isinstance(layout, _Layout) and layout.count >= int(call["dur"]):
                layout = TOO_SHORT
            if isinstance(layout, str):
                unnamed[layout] += 1
                continue
            inside, moment[of_call] = layout.within(call)
            tags.append(inside)
            labeled += by_label
            launches, kernels = launches + (not by_label), kernels + len(of_call) * (not by_label)
        naming = GraphNaming(launches, kernels, unnamed, labeled)
        return GraphTags(np.concatenate(tags), moment, naming)

    def _find_layout(self, names: Codes, around: frozenset[str]) -> _Layout | str:
        """Return the layout of the pass with these kernels, or why there is none."""
        key = names.astype(np.int32).tobytes(), around
        if key not in self._known:
            self._known[key] = self._find(key[0], len(names), around)
        return self._known[key]

    def _find(self, sequence: bytes, count: int, around: frozenset[str]) -> _Layout | str:
        for ops in self._sources:
            found = list(_occurrences(ops.names, sequence))
            passes = [at for at in found if ops.whole(at, count)] or found
            alike = [at for at in passes if around <= self._patterns(ops, at)]
            layouts = {self._steps(ops, at, count, around) for at in alike or passes}
            if len(layouts) > 1:
                return AMBIGUOUS
            if layouts:
                steps = layouts.pop()
                return _Layout.from_steps(steps) if max(steps) >= 0 else NO_TAGS
        return NO_PASS

    def of_modules(self, class_of: Codes, names: list[str]) -> EagerPasses:
        """Return the passes with calls of modules, by the name of their class, as all ranges.

        `class_of` is the class of each name, -1 for what is no module; `names` are the new names.
        """
        sources = [replace(ops, range_names=class_of[ops.range_names]) for ops in self._sources]
        return EagerPasses(names, sources)

    def _steps(self, ops: _EagerOps, begin: int, count: int, around: frozenset[str]) -> Steps:
        """Return the steps of a pass: the ranges that hold no operation but those of the pass.

        Those around all of it, down to the last that is around the graph's launch too, are left
        out.
        """
        end = begin + count - 1
        whole = ops.whole(begin, count)
        repeated = [i for i, r in enumerate(whole) if self._pattern(ops, r) in around]
        left_out = set(whole[: repeated[-1] + 1] if repeated else [])
        steps: list[int] = []
        stack: list[int] = []
        for position in range(begin, begin + count):
            path = [r for r in ops.path(position) if r not in left_out]
            path = [r for r in path if ops.first[r] >= begin and ops.last[r] <= end]
            path = [r for r in path if ops.range_names[r] >= 0]
            while stack != path[: len(stack)]:
                stack.pop()
                steps.append(_CLOSE)
            for r in path[len(stack) :]:
                steps.append(int(ops.range_names[r]))
            stack = path
            steps.append(_KERNEL)
        return (*steps, *[_CLOSE] * len(stack))

    def _patterns(self, ops: _EagerOps, position: int) -> set[str]:
        return {self._pattern(ops, r) for r in ops.path(position) if ops.range_names[r] >= 0}

    def _pattern(self, ops: _EagerOps, number: int) -> str:
        return parse_tag_name(self.names[int(ops.range_names[number])])[0]


def _labels(trace: Trace, rows: Rows) -> Ints:
    """Return the label of each operation, the number of a name; -1 for none."""
    labeled = trace.labeled_ops.to_array()
    columns = ("correlation", "start", "stream")
    keys = zip(*(labeled[name].tolist() for name in columns), strict=True)
    label_of = dict(zip(keys, labeled["label"].tolist(), strict=True))
    if not label_of:
        return np.full(len(rows), -1)
    wanted = zip(*(rows[name].tolist() for name in columns), strict=True)
    return np.array([label_of.get(key, -1) for key in wanted])


def _label_steps(labels: list[int]) -> Steps:
    """Return the steps of kernels with these labels: a range around each run of equal ones."""
    steps: list[int] = []
    current = -1
    for label in labels:
        if label != current:
            steps += [_CLOSE] * (current >= 0) + [label] * (label >= 0)
            current = label
        steps.append(_KERNEL)
    return (*steps, *[_CLOSE] * (current >= 0))


def _patterns_around(trace: Trace, calls: Rows) -> list[frozenset[str]]:
    """Return the patterns of all tags around each call."""
    rows = trace.tags
    forest = nest_intervals(rows, trace.carried)
    around = []
    for tag in innermost_ranges(rows, forest, calls["thread"], calls["start"]).tolist():
        patterns = set()
        while tag >= 0:
            patterns.add(parse_tag_name(trace.names[int(rows["name"][tag])])[0])
            tag = int(forest.parent[tag])
        around.append(frozenset(patterns))
    return around


@dataclass(frozen=True)
class _Layout:
    """The steps of a pass by number: where each range opens and closes, where each kernel runs."""

    count: int
    names: Ints
    opens: Ints
    closes: Ints
    kernels: Ints

    @classmethod
    def from_steps(cls, steps: Steps) -> _Layout:
        """Return the layout of these steps."""
        opens = [i for i, step in enumerate(steps) if step >= 0]
        closes, stack = [0] * len(opens), list[int]()
        opened = 0
        for i, step in enumerate(steps):
            if step >= 0:
                stack.append(opened)
                opened += 1
            elif step == _CLOSE:
                closes[stack.pop()] = i
        kernels = [i for i, step in enumerate(steps) if step == _KERNEL]
        names = [steps[i] for i in opens]
        return cls(len(steps), *(np.array(a, np.int64) for a in (names, opens, closes, kernels)))

    def within(self, call: np.void) -> tuple[Rows, Ints]:
        """Return the tags of the pass within its launch call, and the moments of its kernels."""
        start, dur = int(call["start"]), int(call["dur"])
        times = start + (np.arange(self.count) + 1) * dur // (self.count + 1)
        rows = np.empty(len(self.names), RANGE)
        rows["name"], rows["thread"], rows["start"] = self.names, call["thread"], times[self.opens]
        rows["dur"] = times[self.closes] - times[self.opens]
        return rows, times[self.kernels]


def _occurrences(names: Codes, sequence: bytes) -> Iterator[int]:
    """Yield where a sequence of names (int32) stands, at most `MOST_OCCURRENCES` times."""
    text, width, found = names.tobytes(), names.itemsize, 0
    at = text.find(sequence)
    while at >= 0 and found < MOST_OCCURRENCES:
        if at % width:
            at = text.find(sequence, at + 1)
            continue
        yield at // width
        found += 1
        at = text.find(sequence, at + width)


def find_passes(trace: Trace, capture: Trace | None = None) -> tuple[Trace, EagerPasses | None]:
    """Find the passes that ran outside graphs, in a trace and in one of the capture.

    Return the trace with the names of both, and None in the place of passes if it has no graphs.
    """
    names, numbers = list(trace.names), dict[str, int]()
    for number, name in enumerate(names):
        numbers.setdefault(name, number)
    is_graph = graph_launch_mask(trace)
    if not any(is_graph[rows["name"]].any() for rows in trace.launch_rows.slices()):
        return trace, None
    sources = []
    for source in (capture, trace) if capture is not None else (trace,):
        for name in source.names:
            if name not in numbers:
                numbers[name] = len(names)
                names.append(name)
        number_of = np.array([numbers[name] for name in source.names], dtype=np.int32)
        sources.append(_eager_ops(source, number_of))
    return replace(trace, names=names), EagerPasses(names, sources)


def _eager_ops(trace: Trace, number_of: Codes) -> _EagerOps:
    """Return the operations of a trace that no graph launched, and the ranges around them."""
    is_graph = graph_launch_mask(trace)
    calls, count = [np.empty(0, LAUNCH)], 0
    for rows in trace.launch_rows.slices():
        calls.append(rows[rows["correlation"] > 0])
        count += len(calls[-1])
        if count >= MOST_EAGER:
            break
    launches = np.concatenate(calls)
    ops = np.concatenate(
        [np.empty(0, DEVICE_OP)]
        + [
            rows[np.isin(rows["correlation"], launches["correlation"])]
            for rows in trace.device_rows.slices()
        ]
    )
    launch = match_launches(ops, launches)
    ops, launch = ops[launch >= 0], launch[launch >= 0]
    eager = ~is_graph[launches["name"][launch]] if len(launch) else np.empty(0, bool)
    ops, called = ops[eager], launches[launch[eager]]
    order = np.lexsort((ops["start"], called["start"], called["thread"]))
    ops, called = ops[order], called[order]
    ranges = _ranges(trace, int(called["start"].max(initial=-(2**62))))
    forest = nest_intervals(ranges)
    inner = innermost_ranges(ranges, forest, called["thread"], called["start"])
    first, last = _extent(forest, inner)
    apart = np.flatnonzero(np.diff(called["thread"])) + 1
    names = np.insert(number_of[ops["name"]], apart, _SEPARATOR).astype(np.int32)
    shift = np.arange(len(apart) + len(ops))[names != _SEPARATOR] if len(ops) else apart
    return _EagerOps(
        names=names,
        inner=np.insert(inner, apart, -1),
        range_names=number_of[ranges["name"]],
        forest=forest,
        first=np.append(shift, len(names))[first],
        last=np.append(shift, -1)[last],
    )


def _ranges(trace: Trace, until: int) -> Rows:
    """Return the tags of a trace and its calls of modules that began by then."""
    module = np.array([bool(_MODULE.match(name)) for name in trace.names], dtype=bool)
    parts = [np.empty(0, RANGE)]
    for table in (trace.tag_rows, trace.ops, trace.python):
        for rows in table.slices() if table is trace.tag_rows or module.any() else ():
            chosen: Mask = rows["start"] <= until
            parts.append(rows[chosen if table is trace.tag_rows else chosen & module[rows["name"]]])
    return np.concatenate(parts)


def _extent(forest: IntervalForest, inner: Codes) -> tuple[Ints, Ints]:
    """Return the positions of the first and the last operation within each range.

    Of a range without any they are the number of operations, and -1.
    """
    count = len(inner)
    first = np.full(len(forest.parent), count, dtype=np.int64)
    last = np.full(len(forest.parent), -1, dtype=np.int64)
    inside = np.flatnonzero(inner >= 0)
    np.minimum.at(first, inner[inside], inside)
    np.maximum.at(last, inner[inside], inside)
    for depth in range(int(forest.depth.max(initial=0)), 0, -1):
        level = np.flatnonzero(forest.depth == depth)
        np.minimum.at(first, forest.parent[level], first[level])
        np.maximum.at(last, forest.parent[level], last[level])
    return first, last
