"""Find where a CPU thread waits: for the GPU in a call, or for another thread.

Every wait ends when the work that it waits for ends. The rules are those of docs/trace.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from glassworld.trace.reading.columns import COPY, FILL, Codes, Ints, Mask, Trace
from glassworld.trace.timeline.attribution import DeviceOps
from glassworld.trace.timeline.critical_path.stream_syncs import StreamSyncs, process_numbers
from glassworld.trace.timeline.intervals import merge_intervals

WAIT = np.dtype(
    [
        *(("thread", "<i4"), ("start", "<i8"), ("end", "<i8")),
        *(("op", "<i4"), ("by", "<i4"), ("until", "<i8")),
    ]
)
"""A wait of a thread for a GPU operation `op`, or for what the thread `by` did (else -1).

What it waits for ends at `until`, which is the wait's `end`, or before its start: then the wait is
one nanosecond, and would be longer if the thread had come sooner.
"""

SHORTEST_HANDOVER_NS = 100_000
HANDOVER_SHARE = 0.9  # of a thread's pause: then the other thread's work is what it waited for
_SYNCHRONIZING = re.compile(
    r"Synchronize|^(?:cudaMemcpy|hipMemcpy|hipMemcpyWithStream)$"
    r"|^hsa_(?:amd_)?signal_wait_|^(?:urEventWait|urQueueFinish|piEventsWait|piQueueFinish)$"
)
_EVENT = re.compile(r"Event|signal")
_ALL_STREAMS = re.compile(r"Device|Ctx|Context")
_USUAL_CALL_NS = 10_000

_WAITING_FUNCTION = re.compile(
    r"<built-in (?:function (?:select|waitpid)>"
    r"|method (?:(?:acquire|wait) of |get of _queue\.|join of _thread\.|poll of select\.))"
)
"""What the queues, locks, events, futures, pipes and event loops of Python wait in."""

Waits = npt.NDArray[np.void]


def is_synchronizing(call: str) -> bool:
    """Return whether a call of the GPU's runtime waits for the GPU."""
    return bool(_SYNCHRONIZING.search(call))


def is_waiting_function(name: str) -> bool:
    """Return whether a Python function waits for another thread or process, as `queue.get` does."""
    return bool(_WAITING_FUNCTION.match(name))


def launch_anchors(trace: Trace, ops: DeviceOps) -> tuple[Codes, Ints]:
    """Return the thread that launched each operation (-1: unknown), and when it had done so.

    That is the end of the launch call, or the operation's start if that is earlier. A blocking
    copy has been launched after the usual time of a launch call: the rest of its call is a wait.
    """
    thread = np.full(len(ops), -1, dtype=np.int32)
    at = np.zeros(len(ops), dtype=np.int64)
    known = np.flatnonzero(ops.launch >= 0)
    calls = trace.launches[ops.launch[known]]
    start = ops.rows["start"][known]
    forward = start >= calls["start"]
    known, calls, start = known[forward], calls[forward], start[forward]
    thread[known] = calls["thread"]
    at[known] = np.minimum(calls["start"] + calls["dur"], start)
    copies = blocking_copies(trace, ops)
    usual = calls["dur"][~copies[known]]
    usual_ns = int(np.median(usual)) if len(usual) else _USUAL_CALL_NS
    copied = copies[known]
    at[known[copied]] = np.minimum(at[known[copied]], calls["start"][copied] + usual_ns)
    return thread, at


def blocking_copies(trace: Trace, ops: DeviceOps) -> Mask:
    """Mark the copies and fills that end before the call that launched them."""
    found = np.zeros(len(ops), dtype=bool)
    copies = np.isin(ops.rows["kind"], (COPY, FILL)) & (ops.launch >= 0)
    at = np.flatnonzero(copies)
    calls = trace.launches[ops.launch[at]]
    inside = (ops.rows["start"][at] >= calls["start"]) & (
        ops.end[at] <= calls["start"] + calls["dur"]
    )
    found[at[inside]] = True
    return found


def find_waits(
    trace: Trace, ops: DeviceOps, anchors: tuple[Codes, Ints], busy: Waits, syncs: StreamSyncs
) -> Waits:
    """Return all waits, sorted by thread and time; none overlaps another one of its thread.

    `busy` are the ranges (dtype `RANGE`) of all threads, without Python functions; `syncs` says
    what calls waited for, where the trace does.
    """
    on_gpu = np.concatenate([_copy_waits(trace, ops, anchors), _call_waits(trace, ops, syncs)])
    waits = np.concatenate([on_gpu, _thread_waits(trace, busy)])
    waits = waits[waits["end"] > waits["start"]]
    waits = waits[np.lexsort((waits["by"], waits["start"], waits["thread"]))]
    kept = []
    last_thread, until = -1, 0
    for i, (thread, start, end, *_) in enumerate(waits.tolist()):
        if thread != last_thread or start >= until:
            kept.append(i)
            last_thread, until = thread, end
    return waits[kept]


def _copy_waits(trace: Trace, ops: DeviceOps, anchors: tuple[Codes, Ints]) -> Waits:
    copies = np.flatnonzero(blocking_copies(trace, ops))
    waits = np.empty(len(copies), WAIT)
    waits["thread"], waits["start"] = anchors[0][copies], anchors[1][copies]
    waits["end"], waits["op"], waits["by"] = ops.end[copies], copies, -1
    waits["until"] = waits["end"]
    return waits


def _call_waits(trace: Trace, ops: DeviceOps, syncs: StreamSyncs) -> Waits:
    """Return the waits in synchronizing calls: for the operations that were launched before.

    Operations that other processes launched are never waited for. A call for all streams waits
    for the last of each. A call for a stream or an event waits for the operations that `syncs`
    says. Where it says nothing, that is the one that ends last; for an event, it must end during
    the call: else nothing tells which operation it stands for.
    """
    synchronizing = np.array([is_synchronizing(name) for name in trace.names], dtype=bool)
    launches = trace.launches
    which = np.flatnonzero(synchronizing[launches["name"]])
    calls = launches[which]
    if not len(calls):
        return np.empty(0, WAIT)
    start, end = calls["start"], calls["start"] + calls["dur"]
    process = process_numbers(trace)
    last = []
    for members in _by_stream(trace, ops):
        ends = members[np.argsort(ops.end[members], kind="stable")]
        at = np.searchsorted(ops.end[ends], end, "right") - 1
        op = np.where(at >= 0, ends[np.maximum(at, 0)], -1)
        launch = ops.launch[op]
        launched = (op >= 0) & (launch >= 0) & (launches["start"][launch] < start)
        launched &= process[launches["thread"][launch]] == process[calls["thread"]]
        last.append(np.where(launched, op, -1))
    waits = []
    for i, call in enumerate(calls):
        name = trace.names[call["name"]]
        awaited = sorted((int(ops.end[op[i]]), int(op[i])) for op in last if op[i] >= 0)
        if (told := syncs.calls.get(int(which[i]))) is not None:
            awaited = sorted((int(ops.end[op]), op) for op in told)
        elif not _ALL_STREAMS.search(name):
            awaited = awaited[-1:]
            if _EVENT.search(name):
                awaited = [(until, op) for until, op in awaited if until > start[i]]
        since = int(start[i])
        for until, last_op in awaited:
            wait_end = max(until, since + 1)
            if wait_end <= end[i]:
                waits.append((int(call["thread"]), since, wait_end, last_op, -1, until))
                since = wait_end
    return np.array(waits, WAIT)


def _by_stream(trace: Trace, ops: DeviceOps) -> list[Ints]:
    """Return the operations of each stream, in order."""
    _, lane = np.unique(trace.streams(ops.rows), return_inverse=True)
    order = np.argsort(lane, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(lane[order])) + 1) if len(ops) else []


@dataclass(frozen=True)
class _Burst:
    """Work of a thread that lies in a stretch in which another one begins and ends no range."""

    start: int
    end: int
    hole_start: int
    hole_end: int

    @property
    def fills_hole(self) -> bool:
        hole = self.hole_end - self.hole_start
        return hole >= SHORTEST_HANDOVER_NS and self.end - self.start >= HANDOVER_SHARE * hole


def _thread_waits(trace: Trace, busy: Waits) -> Waits:
    """Return the waits of each process's busiest thread for others, and of these for it."""
    waits: list[tuple[int, ...]] = []
    threads, count = np.unique(busy["thread"], return_counts=True)
    by_process: dict[object, list[tuple[int, int]]] = {}
    for thread, rows in zip(threads.tolist(), count.tolist(), strict=True):
        by_process.setdefault(str(trace.threads[thread][0]), []).append((rows, thread))
    for members in by_process.values():
        _, main = max(members, key=lambda member: (member[0], -member[1]))
        for _, other in members if len(members) > 1 else ():
            if other != main:
                waits += _waits_between(busy, main, other)
    return np.array(waits, WAIT)


def _waits_between(busy: Waits, main: int, other: int) -> list[tuple[int, ...]]:
    of_main, of_other = (busy[busy["thread"] == thread] for thread in (main, other))
    edges = np.unique(np.concatenate([of_main["start"], of_main["start"] + of_main["dur"]]))
    spans = np.stack([of_other["start"], of_other["start"] + of_other["dur"]], axis=1)
    waits: list[tuple[int, ...]] = []
    before = -(2**62)
    for burst in _bursts(edges, merge_intervals(spans)):
        if burst.fills_hole:
            waits.append((other, before, burst.start, -1, main, burst.start))
            waits.append((main, burst.start, burst.end, -1, other, burst.end))
        before = burst.end
    return waits


def _bursts(edges: Ints, spans: Ints) -> list[_Burst]:
    """Return the spans, joined where they lie in one hole between two of the `edges`."""
    hole = np.searchsorted(edges, spans[:, 0], "right")
    whole = (hole == np.searchsorted(edges, spans[:, 1], "left")) & (hole > 0)
    whole &= hole < len(edges)
    first = np.flatnonzero(
        np.diff(np.where(whole, hole, -1 - np.arange(len(hole))), prepend=-(2**40))
    )
    bursts = []
    for i, j in pairwise([*first.tolist(), len(spans)]):
        at = (int(spans[i, 0]), int(spans[j - 1, 1]))
        hole_start, hole_end = edges[hole[i] - 1 : hole[i] + 1].tolist() if whole[i] else (0, 0)
        bursts.append(_Burst(*at, hole_start, hole_end))
    return bursts
