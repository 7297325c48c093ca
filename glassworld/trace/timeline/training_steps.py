"""Split training steps into forward pass, backward pass and optimizer.

Each moment of a step belongs to one part, and each GPU operation to the part in which its launch
call began. So the parts of a step add up to it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from glassworld.trace.reading.columns import RANGE, Codes, Floats, Ints, Mask, Trace
from glassworld.trace.timeline.attribution import DeviceOps
from glassworld.trace.timeline.intervals import merge_intervals
from glassworld.trace.timeline.rows import WHOLE_RUN

FORWARD, BACKWARD, OPTIMIZER = range(3)
PARTS = ("forward", "backward", "optimizer")

_STEP = re.compile(r"ProfilerStep#\d+$")
_OPTIMIZER = re.compile(r"Optimizer\.step#.+\.step$")
_BACKWARD = re.compile(
    r"autograd::engine::evaluate_function|.*(?:Backward\d*|AccumulateGrad)$"
    r"|torch\.distributed\.ddp\.reducer::copy_bucket_to_grad$"
)
_COLLECTIVE = re.compile(r"gloo:")
_LOADER = re.compile(r"enumerate\(DataLoader\)#")
_NEVER = np.iinfo(np.int64).max

Rows = npt.NDArray[np.void]


@dataclass(frozen=True)
class StepPart:
    """The forward pass, the backward pass or the optimizer of a step; milliseconds.

    `gpu_busy_ms` is what its GPU operations add to the busy time of those that started before,
    `gpu_idle_ms` the time right before them in which the GPU idled.
    """

    cpu_ms: float
    gpu_busy_ms: float
    gpu_idle_ms: float
    gpu_kernels: int


@dataclass(frozen=True)
class TrainingStep:
    """A training step: its times are the sums of those of its three parts; see `StepPart`."""

    name: str
    start_ms: float
    cpu_ms: float
    gpu_busy_ms: float
    gpu_idle_ms: float
    gpu_kernels: int
    forward: StepPart
    backward: StepPart
    optimizer: StepPart


@dataclass(frozen=True)
class DataLoading:
    """The outermost calls of DataLoaders (dtype `RANGE`) on the steps' own thread, in order.

    `lost_ns` is the time that each call costs: all of it, or with a GPU that in which this idles.
    """

    calls: Rows
    lost_ns: Ints

    @property
    def intervals(self) -> Ints:
        """Starts and ends of the calls."""
        return _intervals(self.calls)


@dataclass(frozen=True)
class _Process:
    """The steps of one process, which run on the threads `own`.

    From `edges[i]` to the next edge lies part `part[i]` of a step. A part is numbered by three
    times its step, counted from `first_step`, plus `FORWARD`, `BACKWARD` or `OPTIMIZER`; -1 is
    outside every step.
    """

    pid: object
    own: Codes
    names: list[str]
    starts: Ints
    edges: Ints
    part: Ints


@dataclass(frozen=True)
class StepClock:
    """Tells to which part of which step a moment belongs, for each process of a trace.

    `loader_calls` are those of `DataLoading`.
    """

    processes: list[_Process]
    loader_calls: Rows

    def __len__(self) -> int:
        return sum(len(process.names) for process in self.processes)

    def device_sums(self, trace: Trace, ops: DeviceOps) -> Ints:
        """Return busy time, idle time and number of GPU operations for each part (columns)."""
        sums = np.zeros((3, len(PARTS) * len(self)), dtype=np.int64)
        called = ops.launch >= 0
        calls = trace.launches[ops.launch[called]]
        at = ops.rows["start"].copy()
        at[called] = calls["start"]
        thread = np.full(len(ops), -1)
        thread[called] = calls["thread"]
        first = 0
        for process in self.processes:
            mine: Mask = np.isin(thread, _threads_of(trace, process.pid))
            if len(self.processes) == 1:
                mine |= True
            part = _part_at(process, at[mine])
            inside = part >= 0
            index = part[inside] + first
            for row, values in enumerate((ops.exclusive, ops.idle, np.ones_like(at))):
                np.add.at(sums[row], index, values[mine][inside])
            first += len(PARTS) * len(process.names)
        return sums

    def steps(self, sums: Ints, origin_ns: int) -> list[TrainingStep]:
        """Return the steps in order of time, with the GPU's work from `device_sums`."""
        steps, first = [], 0
        for process in self.processes:
            count = len(PARTS) * len(process.names)
            inside = process.part >= 0
            lengths = np.diff(process.edges)[inside[:-1]]
            cpu = np.bincount(process.part[inside], lengths, minlength=count) / 1e6
            gpu = sums[:, first : first + count]
            several = f" of {process.pid}" if len(self.processes) > 1 else ""
            for i, name in enumerate(process.names):
                of = slice(len(PARTS) * i, len(PARTS) * (i + 1))
                start = (int(process.starts[i]) - origin_ns) / 1e6
                steps.append(_step(name + several, start, cpu[of], gpu[:, of]))
            first += count
        return sorted(steps, key=lambda step: (step.start_ms, step.name))


def _step(name: str, start_ms: float, cpu: Floats, gpu: Ints) -> TrainingStep:
    parts = [
        StepPart(float(cpu[i]), int(gpu[0, i]) / 1e6, int(gpu[1, i]) / 1e6, int(gpu[2, i]))
        for i in range(len(PARTS))
    ]
    return TrainingStep(
        name,
        start_ms,
        float(cpu.sum()),
        int(gpu[0].sum()) / 1e6,
        int(gpu[1].sum()) / 1e6,
        int(gpu[2].sum()),
        *parts,
    )


def _part_at(process: _Process, at: Ints) -> Ints:
    index = np.searchsorted(process.edges, at, "right") - 1
    part: Ints = np.where(index >= 0, process.part[np.maximum(index, 0)], -1)
    return part


def find_steps(trace: Trace) -> StepClock:
    """Find the steps of a trace and their parts.

    A step is a `ProfilerStep#N`; without any, it ends with the last optimizer range before the
    next backward pass; without these, the whole trace is one step.
    """
    step, optimizer, backward = (_named(trace, kind) for kind in (_STEP, _OPTIMIZER, _BACKWARD))
    if not (step.any() or optimizer.any() or backward.any()):
        return StepClock([], _loader_calls(trace, []))
    collective = _named(trace, _COLLECTIVE)
    tags = trace.tag_rows.named(step | optimizer | collective)
    ops = trace.ops.named(optimizer | backward)
    ranges = np.concatenate([tags, ops])
    processes = []
    for pid in dict.fromkeys(trace.threads[thread][0] for thread in ranges["thread"].tolist()):
        mine = ranges[np.isin(ranges["thread"], _threads_of(trace, pid))]
        marks = [mine[of[mine["name"]]] for of in (step, optimizer, backward, collective)]
        processes.append(_process(trace, pid, *marks))
    processes = [process for process in processes if process.names]
    return StepClock(processes, _loader_calls(trace, [process.own for process in processes]))


def _loader_calls(trace: Trace, own: list[Codes]) -> Rows:
    """Return the outermost calls of DataLoaders on the thread that spends most time in them.

    That is one of the steps' `own` threads, or any where those are not known.
    """
    loaders = _named(trace, _LOADER)
    if not loaders.any():
        return np.empty(0, RANGE)
    calls = np.concatenate([table.named(loaders) for table in (trace.tag_rows, trace.ops)])
    threads = np.concatenate([np.empty(0, np.int32), *own])
    if len(threads):
        calls = calls[np.isin(calls["thread"], threads)]
    if not len(calls):
        return calls
    calls = calls[calls["thread"] == np.bincount(calls["thread"], calls["dur"]).argmax()]
    calls = calls[np.lexsort((-calls["dur"], calls["start"]))]
    latest = np.maximum.accumulate(calls["start"] + calls["dur"])
    outermost: Rows = calls[np.concatenate([[True], calls["start"][1:] >= latest[:-1]])]
    return outermost


def _process(
    trace: Trace, pid: object, steps: Rows, updates: Rows, backward: Rows, collectives: Rows
) -> _Process:
    own = np.unique((steps if len(steps) else updates)["thread"])
    optimizer = merge_intervals(_intervals(updates))
    marks = np.concatenate([steps, updates])
    passes = _backward_passes(trace, pid, own, backward, collectives, marks)
    bounds, names = _bounds(trace, steps, optimizer, passes)
    edges = np.unique(np.concatenate([bounds, optimizer, passes]))
    part = np.full(len(edges), -1)
    inside = _within(edges, bounds)
    part[inside] = len(PARTS) * (np.searchsorted(bounds[:, 0], edges[inside], "right") - 1)
    part[inside & _within(edges, passes) & ~_within(edges, optimizer)] += BACKWARD
    part[inside & _within(edges, optimizer)] += OPTIMIZER
    return _Process(pid, own, names, bounds[:, 0], edges, part)


def _bounds(trace: Trace, steps: Rows, optimizer: Ints, passes: Ints) -> tuple[Ints, list[str]]:
    """Return starts and ends of the steps, disjoint and in order, and their names."""
    if len(steps):
        steps = steps[np.argsort(steps["start"], kind="stable")]
        bounds = _intervals(steps)
        bounds[:-1, 1] = np.minimum(bounds[:-1, 1], bounds[1:, 0])
        return bounds, [trace.names[name] for name in steps["name"].tolist()]
    if not len(optimizer):
        whole = [[trace.start, trace.end]] if len(passes) else np.empty((0, 2))
        return np.array(whole, dtype=np.int64), [WHOLE_RUN] * len(whole)
    passes_before = np.searchsorted(passes[:, 0], optimizer[:, 1])
    last = np.append(np.diff(passes_before) > 0, True)
    ends = optimizer[last, 1]
    starts = np.concatenate([[trace.start], ends[:-1]])
    return np.stack([starts, ends], axis=1), [f"step {i}" for i in range(len(ends))]


def _backward_passes(
    trace: Trace, pid: object, own: Codes, ranges: Rows, collectives: Rows, marks: Rows
) -> Ints:
    """Return when the backward passes ran: the union of their ranges, joined over short pauses.

    Beside `ranges`, all operators of their threads count, but for the steps' `own` threads. Two
    ranges are joined if no operator and none of `marks` begins between them on those threads (in
    a trace without such: on any thread of the process). Until one does, a pass also waits for the
    `collectives` that began after it did.
    """
    engine = np.setdiff1d(ranges["thread"], own) if len(own) else np.empty(0, np.int32)
    passes = merge_intervals(_intervals(ranges))
    for rows in trace.ops.slices() if len(engine) else ():
        of_engine = rows[np.isin(rows["thread"], engine)]
        passes = merge_intervals(np.concatenate([passes, _intervals(of_engine)]))
    threads = own if len(own) else _threads_of(trace, pid)
    following = _next_begins(trace, threads, marks, passes[:, 1])
    last = following < np.append(passes[1:, 0], _NEVER)
    last[-1:] = True
    first = np.concatenate([[True], last[:-1]])[: len(passes)]
    joined = np.stack([passes[first, 0], passes[last, 1]], axis=1)
    return _with_waits(joined, following[last], _intervals(collectives))


def _next_begins(trace: Trace, threads: Ints | Codes, marks: Rows, at: Ints) -> Ints:
    """Return when the next operator begins on `threads`, or one of `marks` begins or ends."""
    following = np.full(len(at), _NEVER)
    for begins in (
        *_intervals(marks).T,
        *(rows["start"][np.isin(rows["thread"], threads)] for rows in trace.ops.slices()),
    ):
        in_order = np.append(np.sort(begins), _NEVER)
        following = np.minimum(following, in_order[np.searchsorted(in_order, at)])
    return following


def _with_waits(passes: Ints, following: Ints, collectives: Ints) -> Ints:
    """Extend passes to the end of the collectives that began in them, or before `following`."""
    start, end = collectives.T
    of = np.searchsorted(passes[:, 0], start, "right") - 1
    waited = (of >= 0) & (start < np.append(following, 0)[of])
    extended = passes.copy()
    until = np.minimum(end[waited], following[of[waited]])
    np.maximum.at(extended[:, 1], of[waited], until)
    return extended


def _within(moments: Ints, intervals: Ints) -> Mask:
    """Mark the moments in one of the disjoint intervals, which do not include their ends."""
    index = np.searchsorted(intervals[:, 0], moments, "right") - 1
    within: Mask = np.zeros(len(moments), dtype=bool)
    known = index >= 0
    within[known] = moments[known] < intervals[index[known], 1]
    return within


def _named(trace: Trace, pattern: re.Pattern[str]) -> Mask:
    """Mark the names that match."""
    return np.array([bool(pattern.match(name)) for name in trace.names], dtype=bool)


def _intervals(rows: Rows) -> Ints:
    """Return starts and ends."""
    return np.stack([rows["start"], rows["start"] + rows["dur"]], axis=1)


def _threads_of(trace: Trace, pid: object) -> Ints:
    return np.array([i for i, (process, _) in enumerate(trace.threads) if process == pid])
