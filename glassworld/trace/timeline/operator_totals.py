"""Sum up operators on the CPU and kernels on the GPU by the tag in which they ran."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from glassworld.trace.reading import columns
from glassworld.trace.reading.columns import RANGE, Codes, Ints, Mask, Trace
from glassworld.trace.timeline.attribution import DeviceOps
from glassworld.trace.timeline.intervals import IntervalForest, innermost_ranges, nest_intervals
from glassworld.trace.timeline.tag_tree import TagTree


@dataclass(frozen=True)
class OperatorTotals:
    """One row per operator and group of tags (-1: outside any tag); nanoseconds.

    `total` and `gpu` include the operators called inside, and leave out the calls that the same
    operator made: `aten::mean` calls itself, and its time counts once. `outermost` is the part of
    `total` of calls not made by another operator: over a group it adds up to the operators' time.
    `launched_ns` is the sum of the durations of all GPU operations that operators launched.
    """

    group: Codes
    name: Codes
    calls: Ints
    total: Ints
    self_total: Ints
    outermost: Ints
    gpu: Ints
    gpu_outermost: Ints
    gpu_self: Ints
    launched_ns: int = 0

    def __len__(self) -> int:
        return len(self.group)


@dataclass(frozen=True)
class KernelTotals:
    """One row per kernel name and group of tags (-1: none); `total` in nanoseconds."""

    group: Codes
    name: Codes
    calls: Ints
    total: Ints


class KeyedSums:
    """Sums of rows of numbers by key, over any number of batches."""

    def __init__(self, columns: int) -> None:
        self.keys = np.empty(0, dtype=np.int64)
        self.sums = np.empty((0, columns), dtype=np.int64)

    def add(self, keys: Ints, values: npt.NDArray[np.int64]) -> None:
        """Add each row of `values` to the sums of its key."""
        keys = np.concatenate([self.keys, keys])
        values = np.concatenate([self.sums, values])
        self.keys, where = np.unique(keys, return_inverse=True)
        columns = [np.bincount(where, column) for column in values.T]
        self.sums = np.stack(columns, axis=1).astype(np.int64)

    def groups_and_names(self, names: int) -> tuple[Codes, Codes]:
        """Split keys of the form (group + 1) * names + name into groups and names."""
        return (self.keys // names - 1).astype(np.int32), (self.keys % names).astype(np.int32)


class OperatorSums:
    """Sums up operators in order of time, from one chunk of a trace to the next.

    It remembers the calls that may still be open, because they may launch work or call other
    operators in the next chunk.
    """

    def __init__(self, names: int) -> None:
        self._names = names
        self._sums = KeyedSums(7)
        self._launched_ns = 0
        self._open = np.empty(0, RANGE)
        self._open_keys = np.empty(0, dtype=np.int64)

    def add(self, trace: Trace, tree: TagTree, ops: DeviceOps, numbers: Ints | None = None) -> None:
        """Add a chunk later than those before. Its group `g` counts as `numbers[g + 1]`."""
        launched = ops.launch >= 0
        device_ns, summed_ns = (
            np.bincount(
                ops.launch[launched], column[launched], minlength=len(trace.launches)
            ).astype(np.int64)
            for column in (ops.exclusive, ops.rows["dur"])
        )
        times = trace.ops.even_times(-(-len(trace.ops) // columns.SLICE_ROWS))
        for start, end in pairwise([-(2**62), *times, 2**62]):
            rows = trace.ops.between(start, end)
            tag = innermost_ranges(tree.rows, tree.forest, rows["thread"], rows["start"])
            groups = tree.by_pattern.of[tag] if len(tree) else tag
            group = np.where(tag >= 0, groups, -1)
            if numbers is not None:
                group = numbers[group + 1]
            called = trace.launches["start"]
            calls = np.flatnonzero((called >= start) & (called < end) & (summed_ns > 0))
            keys = (group.astype(np.int64) + 1) * self._names + rows["name"]
            times_of_calls = device_ns[calls], summed_ns[calls]
            self._add_rows(rows, keys, trace.launches[calls], *times_of_calls)

    def _add_rows(
        self,
        new: npt.NDArray[np.void],
        new_keys: Ints,
        calls: npt.NDArray[np.void],
        ns: Ints,
        summed_ns: Ints,
    ) -> None:
        """Add operators, and the GPU time of the launch calls of the same time."""
        carried = len(self._open)
        rows = np.concatenate([self._open, new])
        keys = np.concatenate([self._open_keys, new_keys])
        forest = nest_intervals(rows, carried)
        count = np.arange(len(rows)) >= carried
        dur, first = rows["dur"] * count, forest.depth == 0
        once = ~_called_by_itself(forest, keys)
        inside = forest.sum_into_parents((forest.end - rows["start"]) * count)
        caller = innermost_ranges(rows, forest, calls["thread"], calls["start"])
        self._launched_ns += int(summed_ns[caller >= 0].sum())
        gpu, gpu_self = _gpu_time(forest, caller, ns)
        values = [
            count,
            dur * once,
            dur - inside,
            dur * first,
            gpu * once,
            gpu * first,
            gpu_self,
        ]
        self._sums.add(keys, np.stack([value.astype(np.int64) for value in values], axis=1))
        self._keep_open(rows, keys, forest)

    def _keep_open(self, rows: npt.NDArray[np.void], keys: Ints, forest: IntervalForest) -> None:
        """Remember the last call of each thread and those around it."""
        in_order = rows["thread"][forest.order]
        last = np.flatnonzero(np.diff(in_order, append=-1))
        stack = forest.order[last]
        kept = [stack]
        while len(stack):
            stack = forest.parent[stack].astype(np.int64)
            stack = stack[stack >= 0]
            kept.append(stack)
        chosen = np.concatenate(kept)
        chosen = chosen[np.argsort(forest.depth[chosen], kind="stable")]
        self._open, self._open_keys = rows[chosen].copy(), keys[chosen]
        self._open["dur"] = forest.end[chosen] - self._open["start"]

    def totals(self) -> OperatorTotals:
        """Return the sums of all chunks."""
        groups = self._sums.groups_and_names(self._names)
        totals = OperatorTotals(*groups, *self._sums.sums.T)
        return replace(totals, launched_ns=self._launched_ns)


def operator_totals(trace: Trace, tree: TagTree, ops: DeviceOps) -> OperatorTotals:
    """Sum up every operator under every group of the tree (by pattern)."""
    sums = OperatorSums(len(trace.names))
    sums.add(trace, tree, ops)
    return sums.totals()


def kernel_totals(trace: Trace, tree: TagTree, ops: DeviceOps) -> KernelTotals:
    """Sum up every kernel, copy and fill under every group of the tree (by pattern)."""
    name_count = len(trace.names)
    totals = KeyedSums(2)
    if len(ops):
        tagged = ops.tag >= 0
        group = np.full(len(ops), -1, dtype=np.int64)
        group[tagged] = tree.by_pattern.of[ops.tag[tagged]]
        values = np.stack([np.ones(len(ops), dtype=np.int64), ops.rows["dur"]], axis=1)
        totals.add((group + 1) * name_count + ops.rows["name"], values)
    return KernelTotals(*totals.groups_and_names(name_count), *totals.sums.T)


def _called_by_itself(forest: IntervalForest, keys: Ints) -> Mask:
    """Mark the calls that lie, at any depth, in a call with the same key."""
    called = np.zeros(len(keys), dtype=bool)
    rows = np.flatnonzero(forest.parent >= 0)
    above = forest.parent[rows]
    while len(rows):
        same = keys[above] == keys[rows]
        called[rows[same]] = True
        above = forest.parent[above]
        going = ~same & (above >= 0)
        rows, above = rows[going], above[going]
    return called


def _gpu_time(forest: IntervalForest, caller: Codes, device_ns: Ints) -> tuple[Ints, Ints]:
    """Return the GPU time of what each operator, or one it called, launched; and of itself.

    `caller` is the innermost operator around each launch call, -1 for none.
    """
    gpu = np.zeros(len(forest.parent), dtype=np.int64)
    np.add.at(gpu, caller[caller >= 0], device_ns[caller >= 0])
    own = gpu.copy()
    for depth in range(int(forest.depth.max(initial=0)), 0, -1):
        level = np.flatnonzero(forest.depth == depth)
        np.add.at(gpu, forest.parent[level], gpu[level])
    return gpu, own
