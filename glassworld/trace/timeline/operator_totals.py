"""Sum up operators on the CPU and kernels on the GPU by the tag in which they ran."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from glassworld.trace.reading.columns import Codes, EventTable, Ints, Trace
from glassworld.trace.timeline.attribution import DeviceOps
from glassworld.trace.timeline.intervals import IntervalForest, innermost_ranges, nest_intervals
from glassworld.trace.timeline.tag_tree import TagTree


@dataclass(frozen=True)
class OperatorTotals:
    """One row per operator and group of tags (-1: outside any tag); nanoseconds.

    `total` and `gpu` include the operators called inside; `outermost` is the part of `total`
    of calls not made by another operator, so over a group it adds up to the operators' time.
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


def operator_totals(trace: Trace, tree: TagTree, ops: DeviceOps) -> OperatorTotals:
    """Sum up every operator under every group of the tree (by pattern)."""
    name_count = len(trace.names)
    totals = KeyedSums(7)
    device_ns = np.bincount(
        ops.launch[ops.launch >= 0],
        ops.exclusive[ops.launch >= 0],
        minlength=len(trace.launches),
    ).astype(np.int64)
    for rows in slices_between_ranges(trace.ops):
        forest = nest_intervals(rows)
        tag = innermost_ranges(tree.rows, tree.forest, rows["thread"], rows["start"])
        group = np.where(tag >= 0, tree.by_pattern.of[np.maximum(tag, 0)] if len(tree) else -1, -1)
        dur = rows["dur"]
        inside = forest.sum_into_parents(forest.end - rows["start"])
        gpu, gpu_self = _gpu_time(rows, forest, trace.launches, device_ns)
        first = forest.depth == 0
        values = [np.ones_like(dur), dur, dur - inside, dur * first, gpu, gpu * first, gpu_self]
        totals.add(
            (group.astype(np.int64) + 1) * name_count + rows["name"], np.stack(values, axis=1)
        )
    return OperatorTotals(*totals.groups_and_names(name_count), *totals.sums.T)


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


def _gpu_time(
    rows: npt.NDArray[np.void],
    forest: IntervalForest,
    launches: npt.NDArray[np.void],
    device_ns: Ints,
) -> tuple[Ints, Ints]:
    """Return the GPU time of what each operator, or one it called, launched; and of itself."""
    gpu = np.zeros(len(rows), dtype=np.int64)
    used = np.flatnonzero(device_ns)
    caller = innermost_ranges(rows, forest, launches["thread"][used], launches["start"][used])
    np.add.at(gpu, caller[caller >= 0], device_ns[used][caller >= 0])
    own = gpu.copy()
    for depth in range(int(forest.depth.max(initial=0)), 0, -1):
        level = np.flatnonzero(forest.depth == depth)
        np.add.at(gpu, forest.parent[level], gpu[level])
    return gpu, own


def slices_between_ranges(table: EventTable) -> Iterator[npt.NDArray[np.void]]:
    """Yield the table's rows in slices cut where no range is open, if there is such a place."""
    rest = np.empty(0, table.dtype)
    unread = len(table)
    for part in table.slices():
        unread -= len(part)
        rows = np.concatenate([rest, part]) if len(rest) else part
        at = _last_cut(rows) if unread else len(rows)
        yield rows[:at]
        rest = rows[at:]


def _last_cut(rows: npt.NDArray[np.void]) -> int:
    """Return the last index such that all rows before it end before those from it on begin."""
    latest_end = np.maximum.accumulate(rows["start"] + rows["dur"])[:-1]
    next_start = np.minimum.accumulate(rows["start"][::-1])[::-1][1:]
    cuts = np.flatnonzero(latest_end <= next_start)
    return int(cuts[-1]) + 1 if len(cuts) else len(rows)
