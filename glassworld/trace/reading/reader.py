"""Read a trace into typed columns: any format, any vendor, plain or gzip, any size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from glassworld.errors import TraceError
from glassworld.trace.reading.begin_end import ENDPOINT, UNSORTED, BeginEndPairs
from glassworld.trace.reading.categories import (
    COUNTED_OPERATORS,
    DEVICE,
    GPU_WAIT,
    LAUNCH,
    OLD_OP,
    OP,
    OVERHEAD,
    PYTHON,
    SYNC_KINDS,
    TAG,
    TIMELESS_PHASES,
    UNKNOWN,
    Categories,
    code_by_process,
    is_python_call,
    is_stream,
    old_operator_code,
    operation_kind,
    unread_phase,
)
from glassworld.trace.reading.columns import (
    DEVICE_OP,
    GRADIENT_END,
    LABELED_OP,
    MEMORY,
    RANGE,
    SHAPED_OP,
    SYNC,
    TOTAL_UNKNOWN,
    EventTable,
    Trace,
    fill_totals,
)
from glassworld.trace.reading.columns import LAUNCH as LAUNCH_CALL
from glassworld.trace.reading.event_source import TraceSource
from glassworld.trace.reading.events import (
    FAR_NS,
    Event,
    EventArgs,
    hashable,
    to_identifiers,
    to_ints,
    to_nanoseconds,
    to_small_ints,
)
from glassworld.trace.reading.formats import open_trace
from glassworld.trace.reading.launch_matching import (
    FLOW,
    FORWARD_BACKWARD,
    Flows,
    SharedIds,
    shares_ids,
)

_TABLES = {TAG: RANGE, OP: RANGE, PYTHON: RANGE, LAUNCH: LAUNCH_CALL, DEVICE: DEVICE_OP}
ProgressCallback = Callable[[int], None]
"""Called now and then with the number of (decompressed) bytes read so far."""


class _Interner(dict[Any, int]):
    """Numbers values in the order in which they are first looked up."""

    def __missing__(self, key: Any) -> int:
        number = self[key] = len(self)
        return number


class TraceBuilder:
    """Builds the columns of a trace from its events, a list at a time."""

    def __init__(self) -> None:
        self.names = _Interner()
        self.threads = _Interner()
        self.tables = {code: EventTable(dtype) for code, dtype in _TABLES.items()}
        self.memory = EventTable(MEMORY)
        self.inputs = _Interner()
        self.shaped_ops = EventTable(SHAPED_OP)
        self.sync_rows = EventTable(SYNC)
        self.labeled_ops = EventTable(LABELED_OP)
        self.gradient_ends = EventTable(GRADIENT_END)
        self.events = 0
        self.overhead_ns = 0
        self.start, self.end = 2**62, -(2**62)
        self.skipped: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()
        self.without_duration = 0
        self._categories = Categories()
        self._labels = _Interner()
        self._unsorted = EventTable(UNSORTED)
        self.begin_end = BeginEndPairs()
        self._near_zero: list[tuple[EventTable, npt.NDArray[np.void]]] = []
        self._names_of: dict[Any, str] = {}
        self._flows: Flows | None = Flows()
        self._notes: list[str] = []

    def add(self, events: list[Event]) -> None:
        """Sort events into their tables."""
        self.events += len(events)
        categories = self._categories
        try:
            by_event = [categories[e.cat] if e.ph == "X" else -1 for e in events]
        except TypeError:
            by_event = [categories[hashable(e.cat)] if e.ph == "X" else -1 for e in events]
        codes = np.array(by_event, dtype=np.int8)
        for code in (TAG, OP, PYTHON, LAUNCH, DEVICE, OVERHEAD, OLD_OP, UNKNOWN):
            of_code = [events[i] for i in np.flatnonzero(codes == code)]
            if of_code and code == OLD_OP:
                self._add_old_operators(of_code)
            elif of_code:
                self._add_ranges(code, of_code)
        self._add_syncs([events[i] for i in np.flatnonzero(codes == GPU_WAIT)])
        others = [events[i] for i in np.flatnonzero(codes == -1)]
        self._add_memory([e for e in others if e.ph == "i" and e.name == "[memory]"])
        self._add_flows(others)
        self._add_gradients([e for e in others if e.cat == FORWARD_BACKWARD])
        for event in others:
            if event.ph == "M" and isinstance(event.args, EventArgs) and event.args.name:
                row = (event.pid, event.tid) if event.name == "thread_name" else event.pid
                if event.name in ("process_name", "thread_name"):
                    self._names_of[hashable(row)] = str(event.args.name)
            elif event.ph not in TIMELESS_PHASES:
                self.left_out[unread_phase(event.ph)] += 1
        self._add_begin_end([e for e in others if e.ph in ("B", "E")])

    def _add_ranges(self, code: int, events: list[Event]) -> None:
        kind = type(events[0])  # all events of a list are of one kind
        starts = to_nanoseconds([e.ts for e in events], kind)
        self.without_duration += sum(e.dur is None for e in events)
        durations = to_nanoseconds([e.dur or 0 for e in events], kind)
        possible = (np.abs(starts) < FAR_NS) & (durations < _LONGEST_NS)
        if not possible.all():
            self.skipped["events with impossible times"] += int((~possible).sum())
            events = [events[i] for i in np.flatnonzero(possible)]
            starts, durations = starts[possible], durations[possible]
        if (durations < 0).any():
            self.left_out["events with negative durations"] += int((durations < 0).sum())
            events = [events[i] for i in np.flatnonzero(durations >= 0)]
            starts, durations = starts[durations >= 0], durations[durations >= 0]
        if code == OVERHEAD:
            self.overhead_ns += int(durations.sum())
        elif events:
            rows = self._rows(code, events)
            rows["start"], rows["dur"] = starts, durations
            self._append(self._unsorted if code == UNKNOWN else self.tables[code], rows)
            if code == OP:
                self._add_shaped(events, rows)
            elif code == DEVICE:
                self._add_labeled(events, rows)

    def _add_shaped(self, events: list[Event], rows: npt.NDArray[np.void]) -> None:
        """Keep the recorded inputs of the operators whose work can be counted."""
        counted = [self.names[name] for name in COUNTED_OPERATORS if name in self.names]
        shaped, inputs = [], []
        for i in np.flatnonzero(np.isin(rows["name"], counted)).tolist():
            args = events[i].args
            if isinstance(args, EventArgs) and args.input_shapes != _NOT_RECORDED:
                shaped.append(i)
                inputs.append(self.inputs[args.inputs()])
        kept = np.empty(len(shaped), SHAPED_OP)
        for column in RANGE.names or ():
            kept[column] = rows[column][shaped]
        kept["inputs"] = inputs
        self._append(self.shaped_ops, kept)

    def _add_labeled(self, events: list[Event], rows: npt.NDArray[np.void]) -> None:
        """Keep the labels of the operations of graphs."""
        labels = [e.args.graph_label() if isinstance(e.args, EventArgs) else "" for e in events]
        labeled = [i for i, label in enumerate(labels) if label]
        kept = np.empty(len(labeled), LABELED_OP)
        for column in ("start", "correlation", "stream"):
            kept[column] = rows[column][labeled]
        kept["label"] = [self.names[labels[i]] for i in labeled]
        self.labeled_ops.append(kept)

    def _add_begin_end(self, events: list[Event]) -> None:
        """Keep begins and ends until all are known."""
        if not events:
            return
        starts = to_nanoseconds([e.ts for e in events], type(events[0]))
        rows = np.zeros(len(events), ENDPOINT)
        common = self._rows(UNKNOWN, events)
        for column in common.dtype.names or ():
            rows[column] = common[column]
        rows["start"], rows["dur"] = starts, 0
        rows["is_end"] = [e.ph == "E" for e in events]
        rows["named"] = [bool(e.name) for e in events]
        codes = [self._categories[hashable(e.cat)] for e in events]
        rows["code"] = [
            old_operator_code(e.name) if code == OLD_OP else code * (code != GPU_WAIT)
            for code, e in zip(codes, events, strict=True)
        ]
        possible = np.abs(starts) < FAR_NS
        if not possible.all():
            self.skipped["events with impossible times"] += int((~possible).sum())
        self.begin_end.add(rows[possible])

    def _add_pairs(self) -> None:
        """Add the events that begins and ends make, and count those without a partner."""
        for pairs in self.begin_end.complete():
            for code in np.unique(pairs["code"]).tolist():
                rows = pairs[pairs["code"] == code]
                if code == OVERHEAD:
                    self.overhead_ns += int(rows["dur"].sum())
                elif code:
                    table = self._unsorted if code == UNKNOWN else self.tables[code]
                    of_table = np.empty(len(rows), table.dtype)
                    for column in table.dtype.names or ():
                        of_table[column] = rows[column]
                    self._append(table, of_table)
        for what, count in (
            ("begin events without an end", self.begin_end.begins),
            ("end events without a begin", self.begin_end.ends),
        ):
            if count:
                self.left_out[what] += count

    def _add_old_operators(self, events: list[Event]) -> None:
        codes = [old_operator_code(event.name) for event in events]
        for code in (TAG, OP):
            of_code = [event for event, own in zip(events, codes, strict=True) if own == code]
            if of_code:
                self._add_ranges(code, of_code)

    def _add_flows(self, events: list[Event]) -> None:
        """Keep the flow events, as long as no GPU operation has a correlation id."""
        for phase in ("s", "f") if self._flows else ():
            ends = [e for e in events if e.ph == phase and e.cat != FORWARD_BACKWARD]
            if not ends or self._flows is None:
                continue
            rows = np.empty(len(ends), FLOW)
            rows["name"] = [self.names[hashable(e.name)] for e in ends]
            rows["thread"] = self._threads(ends)
            rows["category"] = [self._labels[str(e.cat or "")] for e in ends]
            rows["id"] = [self._flows.number(e.id) for e in ends]
            rows["at"] = to_nanoseconds([e.ts for e in ends], type(ends[0]))
            self._flows.add(phase, rows)

    def _add_gradients(self, events: list[Event]) -> None:
        """Keep the ends of the links from operators to their backward passes."""
        ends = [e for e in events if e.ph in ("s", "f")]
        if not ends:
            return
        rows = np.empty(len(ends), GRADIENT_END)
        rows["thread"] = self._threads(ends)
        rows["start"] = to_nanoseconds([e.ts for e in ends], type(ends[0]))
        rows["id"] = to_identifiers([e.id for e in ends])
        rows["is_backward"] = [e.ph == "f" for e in ends]
        self.gradient_ends.append(rows[rows["id"] >= 0])

    def _append(
        self, table: EventTable, rows: npt.NDArray[np.void], near_zero: bool = False
    ) -> None:
        """Add rows to a table; those at timestamp 0 wait until the times of all are known."""
        times = rows["at" if table is self.memory else "start"]
        aside = (np.abs(times) <= _NEAR_ZERO_NS) & (not near_zero)
        if aside.any():
            self._near_zero.append((table, rows[aside]))
            rows, times = rows[~aside], times[~aside]
        if len(rows):
            table.append(rows)
            if table is not self.memory and table is not self._unsorted:
                self.start = min(self.start, int(times.min()))
                self.end = max(self.end, int((times + rows["dur"]).max()))

    def _add_near_zero(self) -> None:
        """Add the rows at timestamp 0, unless all others are far from them."""
        ends = [
            int(r["start"].max() + r["dur"].max())
            for t, r in self._near_zero
            if "dur" in (r.dtype.names or ())
        ]
        gap = self.start - max(ends, default=0)
        far = any(
            gap > max(least, times * (self.end - self.start)) for least, times in _FAR_FROM_ZERO
        )
        for table, rows in self._near_zero:
            if far and self.start <= self.end:
                if table is not self.shaped_ops:  # whose rows are operators, counted as such
                    self.left_out["events at timestamp 0, far from all others,"] += len(rows)
            else:
                self._append(table, rows, near_zero=True)

    def _sort_by_process(self) -> None:
        """Sort the events of no known category by their process and thread."""
        labels, threads = list(self._labels), list(self.threads)
        with_streams = {
            row[0]
            for row, name in self._names_of.items()
            if isinstance(row, tuple) and is_stream(name)
        }
        told_by = ["thread", "category", "on_stream", "step"]
        calls = np.array([is_python_call(str(name)) for name in self.names], dtype=bool)
        for rows in self._unsorted.slices():
            kinds, which = np.unique(rows[told_by], return_inverse=True)
            for i, (thread, category, on_stream, step) in enumerate(kinds.tolist()):
                process, row = (self._row_name(threads[thread], of) for of in (0, 1))
                code = code_by_process(process, row, labels[category], on_stream)
                if code == DEVICE and threads[thread][0] in with_streams and not is_stream(row):
                    code = 0
                elif code == OP and step:
                    code = TAG
                selected = rows[which == i]
                if not code:
                    what = (
                        f"of the category {labels[category]}"
                        if labels[category]
                        else (f"in the row {row or process} that span others")
                    )
                    self.left_out[f"complete events {what}"] += len(selected)
                    continue
                is_python = calls[selected["name"]] & (code == OP)
                for own, part in ((code, selected[~is_python]), (PYTHON, selected[is_python])):
                    sorted_rows = np.empty(len(part), self.tables[own].dtype)
                    for name in sorted_rows.dtype.names or ():
                        sorted_rows[name] = part[name]
                    if own == DEVICE and not on_stream:
                        sorted_rows["stream"] = thread
                    self._append(self.tables[own], sorted_rows, near_zero=True)

    def _row_name(self, thread: tuple[Any, Any], part: int) -> str:
        """Return the name of a thread's process (0) or of itself (1)."""
        pid, _ = thread
        return self._names_of.get(thread, "") if part else self._names_of.get(pid, str(pid))

    def _rows(self, code: int, events: list[Event]) -> npt.NDArray[np.void]:
        """Return rows for a table, their times yet to be filled in."""
        rows = np.empty(len(events), UNSORTED if code == UNKNOWN else self.tables[code].dtype)
        names = self.names
        try:
            rows["name"] = [names[e.name] for e in events]
        except TypeError:
            rows["name"] = [names[hashable(e.name)] for e in events]
        rows["thread"] = self._threads(events)
        if code in (LAUNCH, DEVICE, UNKNOWN):
            args = [e.args if isinstance(e.args, EventArgs) else _NO_ARGS for e in events]
            rows["correlation"] = to_identifiers([a.correlation for a in args])
            if code == DEVICE and (rows["correlation"] > 0).any():
                self._flows = None
            if code != LAUNCH:
                rows["stream"] = to_small_ints([a.stream for a in args])
                rows["device"] = to_small_ints([a.device for a in args])
                rows["bytes"] = to_ints([a.bytes for a in args], 0)
                rows["kind"] = [operation_kind(e.cat, e.name) for e in events]
            if code == UNKNOWN:
                rows["category"] = [self._labels[str(e.cat or "")] for e in events]
                rows["on_stream"] = [a.stream is not None and a.device is not None for a in args]
                rows["step"] = [a.step_num is not None for a in args]
                for i in np.flatnonzero(rows["step"]).tolist():  # steps of JAX have one name
                    rows["name"][i] = names[f"{events[i].name} {args[i].step_num}"]
        return rows

    def _threads(self, events: list[Event]) -> list[int]:
        threads = self.threads
        try:
            return [threads[e.pid, e.tid] for e in events]
        except TypeError:
            return [threads[hashable(e.pid), hashable(e.tid)] for e in events]

    def _add_memory(self, events: list[Event]) -> None:
        if not events:
            return
        rows = np.empty(len(events), MEMORY)
        args = [e.args if isinstance(e.args, EventArgs) else _NO_ARGS for e in events]
        rows["thread"] = self._threads(events)
        rows["at"] = to_nanoseconds([e.ts for e in events], type(events[0]))
        rows["total"] = to_ints([a.total_allocated for a in args], TOTAL_UNKNOWN)
        rows["change"] = to_ints([a.allocated for a in args], 0)
        cpu = to_ints([a.device_type for a in args], 0) == 0
        rows["device"] = np.where(cpu, -1, to_small_ints([a.device_id for a in args]))
        self._append(self.memory, rows)

    def _add_syncs(self, events: list[Event]) -> None:
        """Keep the waits of streams and calls; the window, and all sums, are without them."""
        if not events:
            return
        args = [e.args if isinstance(e.args, EventArgs) else _NO_ARGS for e in events]
        rows = np.empty(len(events), SYNC)
        kind = type(events[0])
        rows["start"] = to_nanoseconds([e.ts for e in events], kind)
        rows["dur"] = to_nanoseconds([e.dur or 0 for e in events], kind)
        rows["kind"] = [SYNC_KINDS.get(str(e.name).lower(), -1) for e in events]
        rows["device"] = to_small_ints([a.device for a in args])
        rows["correlation"] = to_identifiers([a.correlation for a in args])
        recorded_by = [a.wait_on_cuda_event_record_corr_id for a in args]
        rows["recorded_by"] = to_identifiers(recorded_by)
        for column, streams in (
            ("stream", [a.stream for a in args]),
            ("awaited_stream", [a.wait_on_stream for a in args]),
        ):
            numbers = to_ints(streams, -1)
            rows[column] = np.where((numbers >= 0) & (numbers < 2**31), numbers, -1)
        self.sync_rows.append(rows)

    def _tell_processes_apart(self) -> None:
        """Give each process correlation ids of its own."""
        launches, ops = self.tables[LAUNCH].to_array(), self.tables[DEVICE].to_array()
        names = [str(name) for name in self.names]
        ids = SharedIds(list(self.threads), names, launches, ops)
        self.tables[LAUNCH] = EventTable.from_rows(ids.launches)
        self.tables[DEVICE] = EventTable.from_rows(ids.ops)
        self.sync_rows = EventTable.from_rows(ids.of_waits(self.sync_rows.to_array()))
        labels = ids.of_labels(ops, self.labeled_ops.to_array())
        self.labeled_ops = EventTable.from_rows(labels)
        self._notes += ids.notes

    def finish(self, path: Path, source: TraceSource) -> Trace:
        """Return the complete columns."""
        self._add_pairs()
        self._add_near_zero()
        self._sort_by_process()
        if self._flows:
            self.tables[LAUNCH], self.tables[DEVICE] = self._flows.connect(
                self.tables[LAUNCH], self.tables[DEVICE]
            )
        elif shares_ids(list(self.threads), self.tables[LAUNCH]):
            self._tell_processes_apart()
        skipped, left_out = (
            [f"{count} {what} were left out" for what, count in counts.items()]
            for counts in (self.skipped, self.left_out)
        )
        if self.without_duration:
            left_out.append(f"{self.without_duration} events have no duration and count as 0 ms")
        memory, notes = fill_totals(self.memory, list(self.threads))
        left_out += notes + self._notes
        empty = self.start > self.end
        return Trace(
            path=str(path),
            metadata=source.metadata,
            names=[str(name) for name in self.names],
            threads=list(self.threads),
            tag_rows=self.tables[TAG],
            launch_rows=self.tables[LAUNCH],
            device_rows=self.tables[DEVICE],
            memory=memory,
            ops=self.tables[OP],
            python=self.tables[PYTHON],
            events=self.events,
            bytes_read=source.bytes_read,
            overhead_ns=self.overhead_ns,
            start=0 if empty else self.start,
            end=0 if empty else self.end,
            losses=[*source.losses, *skipped],
            left_out=left_out,
            inputs=list(self.inputs),
            shaped_ops=self.shaped_ops,
            sync_rows=self.sync_rows,
            labeled_ops=self.labeled_ops,
            gradient_ends=self.gradient_ends,
        )


def read_trace(
    path: str | Path, progress: ProgressCallback | None = None, tags_only: bool = False
) -> Trace:
    """Read the trace at `path` into columns; `tags_only` skips everything but tags and is faster.

    Raises `TraceError` if there is nothing to read; `Trace.losses` names what is damaged.
    """
    path = Path(path)
    source = open_trace(path, tags_only)
    builder = TraceBuilder()
    for events in source:
        builder.add(events)
        del events
        if progress:
            progress(source.bytes_read)
    if tags_only and len(builder.begin_end):
        return read_trace(path, progress).tags_alone()  # an end need not say what it ends
    if not builder.events and not tags_only:
        reasons = "; ".join(source.losses) or "its event list is empty"
        raise TraceError(f"{path}: no events in this trace: {reasons}; record it again")
    return builder.finish(path, source)


_NO_ARGS = EventArgs()
_NOT_RECORDED = msgspec.Raw()
_LONGEST_NS = 365 * 86_400 * 10**9  # nothing runs for a year
_NEAR_ZERO_NS = 500  # where a clock that was never read stands
_FAR_FROM_ZERO = ((60 * 10**9, 10), (10**8, 100))
"""How far the other events are from 0 if 0 is no time at all: nanoseconds, and their windows."""
