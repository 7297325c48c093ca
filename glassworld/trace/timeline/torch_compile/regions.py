"""Find the compiled regions of a trace, and sum up what ran in them.

A region runs while a range `Torch-Compiled Region: ...` or `CompiledFunctionBackward` is open.
Where neither is around, `CompiledFunction` and `## Call CompiledFxGraph ... ##` are regions too.
What runs in several regions, one within the other, belongs to the innermost one. What runs while
torch.compile compiles, which it may do within a region, belongs to none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from glassworld.trace.reading.columns import (
    GRADIENT_END,
    RANGE,
    Codes,
    EventTable,
    Ints,
    Mask,
    Trace,
)
from glassworld.trace.timeline.attribution import DeviceOps
from glassworld.trace.timeline.intervals import (
    IntervalForest,
    innermost_ranges,
    merge_intervals,
    nest_intervals,
)
from glassworld.trace.timeline.operator_totals import KernelTotals, KeyedSums
from glassworld.trace.timeline.tag_tree import TagTree, build_tree
from glassworld.trace.timeline.torch_compile.kernel_names import (
    CPP,
    FusedName,
    known_operators,
    parse_fused_name,
)

_COMPILED = re.compile(
    r"Torch-Compiled Region(?::|$)|CompiledFunction(?:Backward)?$|## Call CompiledFxGraph\b"
)
_ALWAYS = re.compile(r"Torch-Compiled Region(?::|$)|CompiledFunctionBackward$")
_GRAPH = re.compile(r"## Call CompiledFxGraph (\w+)")
_COMPILING = re.compile(r".* \(dynamo_timed\)$")

Rows = npt.NDArray[np.void]


@dataclass(frozen=True)
class Region:
    """A compiled region: the name of its range, the hash of its graph ("": none), its tags.

    `path` has the patterns of the tags around it, the outermost first. `forward_path` has those
    around the forward pass whose gradient the region computes; () where none is linked to it.
    """

    name: str
    graph: str
    path: tuple[str, ...]
    forward_path: tuple[str, ...] = ()


@dataclass(frozen=True)
class RegionRuns:
    """The runs of all regions: ranges (dtype `RANGE`), and the region of each.

    Ranges in which torch.compile compiles are among them; their region is -1.
    """

    rows: Rows
    forest: IntervalForest
    of: Codes
    regions: list[Region]

    @property
    def count(self) -> Ints:
        """How often each region ran."""
        of = self.of[self.of >= 0]
        return np.bincount(of, minlength=len(self.regions)).astype(np.int64)

    @property
    def cpu_ns(self) -> Ints:
        """The time that each region was open on its thread, without what it holds.

        That is the regions inside it, and compiling.
        """
        open_ns = self.forest.end - self.rows["start"]
        self_ns = open_ns - self.forest.sum_into_parents(open_ns)
        runs = self.of >= 0
        sums = np.bincount(self.of[runs], self_ns[runs], minlength=len(self.regions))
        return sums.astype(np.int64)

    @property
    def compiling(self) -> Ints:
        """When torch.compile compiled, on whichever thread: disjoint starts and ends, in order."""
        rows = self.rows[self.of < 0]
        return merge_intervals(np.stack([rows["start"], rows["start"] + rows["dur"]], axis=1))

    def around(self, thread: Codes, at: Ints) -> Ints:
        """Return the region around each time on each thread; -1 where there is none."""
        return np.append(self.of, -1)[innermost_ranges(self.rows, self.forest, thread, at)]


@dataclass(frozen=True)
class CompiledTotals:
    """What ran in compiled regions, and the kernels that Inductor fused.

    The groups of `inside` are regions. It has all their GPU operations and the C++ kernels.
    `outside` has fused kernels that ran in no region; its groups are rows of `patterns`. `fused`
    says which names are those of fused kernels. The time of C++ kernels is CPU time.
    """

    runs: RegionRuns
    fused: dict[int, FusedName]
    inside: KernelTotals
    outside: KernelTotals


class CompiledSums:
    """Sums up what ran in the compiled regions of a trace, from one chunk to the next."""

    def __init__(self, trace: Trace) -> None:
        known = known_operators(trace.names)
        parsed = enumerate(parse_fused_name(name, known) for name in trace.names)
        self.fused = {i: name for i, name in parsed if name}
        self.runs = find_regions(trace)
        self._names = len(trace.names)
        self._is_fused = np.isin(np.arange(self._names), list(self.fused))
        cpp = [i for i, name in self.fused.items() if name.kind == CPP]
        self._is_cpp = np.isin(np.arange(self._names), cpp)
        self._inside, self._outside = KeyedSums(2), KeyedSums(2)

    def add(self, trace: Trace, tree: TagTree, ops: DeviceOps, numbers: Ints | None = None) -> None:
        """Add a chunk. `numbers` has a number for each group of patterns, behind that of none."""
        if not (self.fused or len(self.runs.rows)):
            return
        if numbers is None:
            numbers = np.arange(-1, len(tree.by_pattern))
        calls = trace.launches[ops.launch] if len(trace.launches) else np.zeros(len(ops), RANGE)
        region = np.where(ops.launch >= 0, self.runs.around(calls["thread"], calls["start"]), -1)
        self._add(ops.rows, region, tree, ops.tag, numbers)
        for rows in trace.ops.slices() if self._is_cpp.any() else ():
            kernels = rows[self._is_cpp[rows["name"]]]
            at = kernels["thread"], kernels["start"]
            tag = innermost_ranges(tree.rows, tree.forest, *at)
            self._add(kernels, self.runs.around(*at), tree, tag, numbers)

    def _add(self, rows: Rows, region: Ints, tree: TagTree, tag: Codes, numbers: Ints) -> None:
        group = numbers[1 + np.append(tree.by_pattern.of, -1)[tag]]
        values = np.stack([np.ones(len(rows), dtype=np.int64), rows["dur"]], axis=1)
        inside = region >= 0
        self._inside.add((region[inside] + 1) * self._names + rows["name"][inside], values[inside])
        outside = ~inside & self._is_fused[rows["name"]]
        keys = (group[outside] + 1) * self._names + rows["name"][outside]
        self._outside.add(keys, values[outside])

    def totals(self) -> CompiledTotals:
        """Return the sums of all chunks; the groups of `outside` are `numbers`."""
        inside, outside = (
            KernelTotals(*sums.groups_and_names(self._names), *sums.sums.T)
            for sums in (self._inside, self._outside)
        )
        return CompiledTotals(self.runs, self.fused, inside, outside)


def find_regions(trace: Trace) -> RegionRuns:
    """Find the runs of all compiled regions of a whole trace."""
    compiled, always = (_matching(trace, pattern) for pattern in (_COMPILED, _ALWAYS))
    ranges = _named(trace, compiled)
    forest = nest_intervals(ranges)
    begins = always[ranges["name"]] | (forest.parent < 0)
    run_of = _runs_around(forest, begins)
    graphs = _graphs(trace, ranges, run_of)
    at = np.flatnonzero(begins)
    rows = ranges[at]
    paths = _tag_paths(trace, rows, compiled)
    forward_paths = _tag_paths(trace, _forward_passes(trace, rows), compiled)
    names = [trace.names[name] for name in rows["name"]]
    numbers: dict[Region, int] = {}
    of = [
        numbers.setdefault(Region(name, graphs.get(run, ""), path, forward), len(numbers))
        for run, name, path, forward in zip(at.tolist(), names, paths, forward_paths, strict=True)
    ]
    compiling = _named(trace, _matching(trace, _COMPILING))
    rows = np.concatenate([rows, compiling])
    of = [*of, *[-1] * len(compiling)]
    return RegionRuns(rows, nest_intervals(rows), np.array(of, dtype=np.int32), list(numbers))


def _named(trace: Trace, names: Mask) -> Rows:
    """Return the operators and tags with these names."""
    return np.concatenate([table.named(names) for table in (trace.ops, trace.tag_rows)])


def _matching(trace: Trace, pattern: re.Pattern[str]) -> Mask:
    return np.array([bool(pattern.match(name)) for name in trace.names], dtype=bool)


def _runs_around(forest: IntervalForest, begins: Mask) -> Ints:
    """Return for each range the run that it is, or that it lies in."""
    run_of = np.where(begins, np.arange(len(begins)), -1)
    for depth in range(1, int(forest.depth.max(initial=0)) + 1):
        level = np.flatnonzero((forest.depth == depth) & ~begins)
        run_of[level] = run_of[forest.parent[level]]
    return run_of


def _graphs(trace: Trace, ranges: Rows, run_of: Ints) -> dict[int, str]:
    """Return the hash of the first graph that each run calls."""
    graphs: dict[int, str] = {}
    for i in np.argsort(ranges["start"], kind="stable").tolist():
        if graph := _GRAPH.match(trace.names[ranges["name"][i]]):
            graphs.setdefault(int(run_of[i]), graph[1])
    return graphs


def _forward_passes(trace: Trace, runs: Rows) -> Rows:
    """Return where the forward pass of each run began, by the trace's links; thread -1: unknown.

    A link that begins twice, as in the traces of two processes in one file, tells nothing.
    """
    forward = np.zeros(len(runs), RANGE)
    forward["thread"] = -1
    ends = trace.gradient_ends.to_array() if len(runs) else np.empty(0, GRADIENT_END)
    at = np.isin(ends["start"], runs["start"]) & ends["is_backward"]
    link_of = {(end["thread"], end["start"]): end["id"] for end in ends[at]}
    begins = ends[~ends["is_backward"] & np.isin(ends["id"], ends["id"][at])]
    _, first, count = np.unique(begins["id"], return_index=True, return_counts=True)
    begin_of = {
        begin["id"]: (begin["thread"], begin["start"]) for begin in begins[first[count == 1]]
    }
    for i, run in enumerate(runs):
        link = link_of.get((run["thread"], run["start"]))
        if link in begin_of:
            forward["thread"][i], forward["start"][i] = begin_of[link]
    return forward


def _tag_paths(trace: Trace, runs: Rows, compiled: Mask) -> list[tuple[str, ...]]:
    """Return the patterns of the tags around each run; tags of the compiler are left out."""
    enclosing = [np.empty(0, RANGE)]
    for rows in trace.tag_rows.slices() if len(runs) else ():
        tags = rows[~compiled[rows["name"]]]
        enclosing.append(tags[_reach_a_start(tags, runs)])
    tags = EventTable.from_rows(np.concatenate(enclosing))
    tree = build_tree(replace(trace, tag_rows=tags))
    innermost = innermost_ranges(tree.rows, tree.forest, runs["thread"], runs["start"])
    group = np.append(tree.by_pattern.of, -1)[innermost]
    return [tree.by_pattern.path(g, tree.patterns) for g in group.tolist()]


def _reach_a_start(tags: Rows, runs: Rows) -> Mask:
    """Mark the tags in which one of the runs begins, on its thread."""
    reaches = np.zeros(len(tags), dtype=bool)
    for thread in np.unique(runs["thread"]).tolist():
        starts = np.sort(runs["start"][runs["thread"] == thread])
        mine = np.flatnonzero(tags["thread"] == thread)
        first = np.searchsorted(starts, tags["start"][mine], "left")
        behind = np.searchsorted(starts, tags["start"][mine] + tags["dur"][mine], "right")
        reaches[mine] = behind > first
    return reaches
