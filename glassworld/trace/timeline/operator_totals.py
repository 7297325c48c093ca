"""What a tag's time is made of: operators on the CPU, kernels on the GPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from glassworld.trace.reading.columns import Codes, Ints, Spool, Trace
from glassworld.trace.timeline.attribution import DeviceOps
from glassworld.trace.timeline.intervals import Forest, innermost, nest
from glassworld.trace.timeline.tag_tree import TagTree


@dataclass(frozen=True)
class Operators:
    """One row per operator and group of tags (-1: outside any tag); nanoseconds.

    `total` and `gpu` include the operators called inside; `outermost` is the part of `total`
    of calls not made by another operator, so over a group it adds up to the operators' time.
    """

    group: Codes
    name: Codes
    calls: Ints
    total: Ints
    own: Ints
    outermost: Ints
    gpu: Ints
    gpu_outermost: Ints

    def __len__(self) -> int:
        return len(self.group)


@dataclass(frozen=True)
class Kernels:
    """One row per kernel name and group of tags (-1: none); `total` in nanoseconds."""

    group: Codes
    name: Codes
    calls: Ints
    total: Ints


class Totals:
    """Sums rows of numbers by a key, over any number of batches."""

    def __init__(self, columns: int) -> None:
        self.keys = np.empty(0, dtype=np.int64)
        self.sums = np.empty((0, columns), dtype=np.int64)

    def add(self, keys: Ints, values: npt.NDArray[np.int64]) -> None:
        keys = np.concatenate([self.keys, keys])
        values = np.concatenate([self.sums, values])
        self.keys, where = np.unique(keys, return_inverse=True)
        columns = [np.bincount(where, column) for column in values.T]
        self.sums = np.stack(columns, axis=1).astype(np.int64)

    def groups_and_names(self, names: int) -> tuple[Codes, Codes]:
        """What keys of (group + 1) * names + name stand for."""
        return (self.keys // names - 1).astype(np.int32), (self.keys % names).astype(np.int32)


def operators(trace: Trace, tree: TagTree, ops: DeviceOps) -> Operators:
    """Sum up every operator under every group of the tree (by pattern)."""
    wide = len(trace.names)
    totals = Totals(6)
    device_ns = np.bincount(
        ops.launch[ops.launch >= 0],
        ops.exclusive[ops.launch >= 0],
        minlength=len(trace.launches),
    ).astype(np.int64)
    for rows in quiet_slices(trace.ops):
        forest = nest(rows)
        tag = innermost(tree.rows, tree.forest, rows["thread"], rows["start"])
        group = np.where(tag >= 0, tree.by_pattern.of[np.maximum(tag, 0)] if len(tree) else -1, -1)
        dur = rows["dur"]
        inside = forest.sum_into_parents(forest.end - rows["start"])
        gpu = _gpu_inclusive(rows, forest, trace.launches, device_ns)
        first = forest.depth == 0
        values = [np.ones_like(dur), dur, dur - inside, dur * first, gpu, gpu * first]
        totals.add((group.astype(np.int64) + 1) * wide + rows["name"], np.stack(values, axis=1))
    return Operators(*totals.groups_and_names(wide), *totals.sums.T)


def kernels(trace: Trace, tree: TagTree, ops: DeviceOps) -> Kernels:
    """Sum up every kernel, copy and fill under every group of the tree (by pattern)."""
    wide = len(trace.names)
    totals = Totals(2)
    if len(ops):
        known = ops.tag >= 0
        group = np.full(len(ops), -1, dtype=np.int64)
        group[known] = tree.by_pattern.of[ops.tag[known]]
        values = np.stack([np.ones(len(ops), dtype=np.int64), ops.rows["dur"]], axis=1)
        totals.add((group + 1) * wide + ops.rows["name"], values)
    return Kernels(*totals.groups_and_names(wide), *totals.sums.T)


def _gpu_inclusive(
    rows: npt.NDArray[np.void], forest: Forest, launches: npt.NDArray[np.void], device_ns: Ints
) -> Ints:
    """GPU time of what each operator, or one it called, launched."""
    gpu = np.zeros(len(rows), dtype=np.int64)
    used = np.flatnonzero(device_ns)
    caller = innermost(rows, forest, launches["thread"][used], launches["start"][used])
    np.add.at(gpu, caller[caller >= 0], device_ns[used][caller >= 0])
    for depth in range(int(forest.depth.max(initial=0)), 0, -1):
        level = np.flatnonzero(forest.depth == depth)
        np.add.at(gpu, forest.parent[level], gpu[level])
    return gpu


def quiet_slices(spool: Spool) -> Iterator[npt.NDArray[np.void]]:
    """The spool's rows in slices cut where no range is open, if there is such a place."""
    rest = np.empty(0, spool.dtype)
    waiting = len(spool)
    for part in spool.slices():
        waiting -= len(part)
        rows = np.concatenate([rest, part]) if len(rest) else part
        at = _last_quiet(rows) if waiting else len(rows)
        yield rows[:at]
        rest = rows[at:]


def _last_quiet(rows: npt.NDArray[np.void]) -> int:
    """The last place where everything before has ended when everything behind begins."""
    latest_end = np.maximum.accumulate(rows["start"] + rows["dur"])[:-1]
    next_start = np.minimum.accumulate(rows["start"][::-1])[::-1][1:]
    quiet = np.flatnonzero(latest_end <= next_start)
    return int(quiet[-1]) + 1 if len(quiet) else len(rows)
