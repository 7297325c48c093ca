"""Read a trace in Perfetto's protocol buffers (`.pftrace`): its track events.

The schema is documented in `perfetto_trace.proto`. A file is a sequence of packets; a slice begins
in one and ends in another, on a track. Names are interned per sequence of packets. Slices with the
categories of torch's profiler or of rocprofv3 become what they are there. All others are tags, but
those on tracks of a device are GPU operations.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from glassworld.trace.reading import wire
from glassworld.trace.reading.categories import DEVICE, UNKNOWN, Categories, code_by_process
from glassworld.trace.reading.event_source import EventSource, memory_event, range_event
from glassworld.trace.reading.events import Event, EventArgs, NanosecondEvent

MEMORY_COUNTER = "Allocated bytes, device "
"""What counter tracks of allocated memory are called; a device's number follows, -1 for the CPU."""

_PACKET = 1  # of Trace
_CLOCKS, _TIMESTAMP, _SEQUENCE, _TRACK_EVENT, _INTERNED, _FLAGS = 6, 8, 10, 11, 12, 13
_STATE_CLEARED, _COMPRESSED, _CLOCK, _DEFAULTS, _TRACK = 41, 50, 58, 59, 60  # of TracePacket
_BEGIN, _END, _INSTANT, _COUNTER = 1, 2, 3, 4  # TrackEvent.Type
_BOOT_CLOCK, _FIRST_SEQUENCE_CLOCK = 6, 64
_ROCPROF = {
    "kernel_dispatch": "kernel",
    "memory_copy": "gpu_memcpy",
    "hip_api": "hip_runtime",
    "marker_api": "user_annotation",
    "rccl_api": "cpu_op",
}
_ARGS = {
    "correlation": "correlation",
    "corr_id": "correlation",
    "stream": "stream",
    "stream_ID": "stream",
    "device": "device",
    "bytes": "bytes",
}
"""Annotations of a slice that the reader uses, by name."""

_DEVICE = re.compile(r"-?\d{1,9}")
_EVENTS_AT_ONCE = 1 << 14
_MOST_INFLATED = 1 << 30


def is_perfetto(start: bytes) -> bool:
    """Return whether a file begins like a trace of packets."""
    numbers = {number for number, _, _ in wire.first_message(start)}
    known = {_CLOCKS, _TIMESTAMP, _SEQUENCE, _TRACK_EVENT, _COMPRESSED, _CLOCK, _DEFAULTS, _TRACK}
    return bool(numbers & known)


@dataclass
class _TrackInfo:
    """A track, and what is open on it."""

    name: str = ""
    parent: int = 0
    process: int | None = None
    process_name: str = ""
    thread: tuple[int, int] | None = None
    open: list[_Slice] = field(default_factory=list)


@dataclass
class _Slice:
    name: str
    category: str
    start: int
    args: dict[str, Any]
    flows: list[int]


@dataclass
class _Sequence:
    """The state of a sequence of packets."""

    names: dict[tuple[int, int], str] = field(default_factory=dict)
    """Interned texts, by the number of their field and their id."""
    track: int = 0
    clock: int = _BOOT_CLOCK
    clocks: dict[int, _Clock] = field(default_factory=dict)


@dataclass
class _Clock:
    """A clock of a sequence: a time on it, the same time on the trace's clock, and its unit."""

    value: int
    time: int
    unit: int
    incremental: bool


class PerfettoEvents(EventSource):
    """Reads the track events of a Perfetto trace, packet by packet."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._tracks: dict[int, _TrackInfo] = {}
        self._sequences: dict[int, _Sequence] = {}
        self._offsets: dict[int, int] = {}
        self._started_flows: set[int] = set()
        self._categories = Categories()
        self._unreadable = self._unpaired = self._other = 0

    def events(self) -> Iterator[list[Event]]:
        """Yield the slices as they end, up to where the file is damaged."""
        batch: list[Event] = []
        try:
            for number, content in wire.messages(self.source.read):
                if number == _PACKET:
                    self._add(content, batch)
                if len(batch) >= _EVENTS_AT_ONCE:
                    yield batch
                    batch = []
        except wire.WireError as error:
            self.losses.append(f"the file is cut short or damaged: {error}")
        yield batch
        open_slices = sum(len(track.open) for track in self._tracks.values())
        for count, what in (
            (self._unreadable, "packets could not be read"),
            (open_slices, "slices never end and were left out"),
            (self._unpaired, "slices ended that never began"),
        ):
            if count:
                self.losses.append(f"{count} {what}")
        if self._other and not self._tracks:
            self.losses.append(f"its {self._other} packets hold no track events")

    def _add(self, content: bytes, batch: list[Event], inflated: bool = False) -> None:
        try:
            packet = {number: value for number, _, value in wire.fields(content)}
            if _COMPRESSED in packet:
                if inflated:
                    raise wire.WireError("compressed packets within compressed packets")
                for number, _, value in wire.fields(_inflate(wire.submessage(packet[_COMPRESSED]))):
                    if number == _PACKET:
                        self._add(wire.submessage(value), batch, inflated=True)
                return
            self._take(packet, batch)
        except (wire.WireError, zlib.error):
            self._unreadable += 1

    def _take(self, packet: dict[int, int | bytes], batch: list[Event]) -> None:
        """Take in a packet, whose parts come in the order in which they depend on each other."""
        number = wire.signed(packet.get(_SEQUENCE, 0))
        if wire.signed(packet.get(_FLAGS, 0)) & 1 or packet.get(_STATE_CLEARED):
            self._sequences.pop(number, None)
        sequence = self._sequences.setdefault(number, _Sequence())
        if _DEFAULTS in packet:
            self._set_defaults(wire.submessage(packet[_DEFAULTS]), sequence)
        if _CLOCKS in packet:
            self._set_clocks(wire.submessage(packet[_CLOCKS]), sequence)
        if _INTERNED in packet:
            _intern(wire.submessage(packet[_INTERNED]), sequence)
        if _TRACK in packet:
            self._describe(wire.submessage(packet[_TRACK]))
        clock = wire.signed(packet.get(_CLOCK, sequence.clock))
        at = self._time(wire.signed(packet.get(_TIMESTAMP, 0)), clock, sequence)
        if _TRACK_EVENT in packet:
            self._event(wire.submessage(packet[_TRACK_EVENT]), at, sequence, batch)
        else:
            self._other += 1

    def _set_defaults(self, content: bytes, sequence: _Sequence) -> None:
        for number, _, value in wire.fields(content):
            if number == _CLOCK:
                sequence.clock = wire.signed(value)
            elif number == _TRACK_EVENT:
                for inner, _, track in wire.fields(wire.submessage(value)):
                    if inner == 11:
                        sequence.track = wire.signed(track)

    def _set_clocks(self, content: bytes, sequence: _Sequence) -> None:
        """Take in a snapshot of clocks: the built-in ones' offsets, and the sequence's own."""
        snapshot = []
        for number, _, value in wire.fields(content):
            if number == 1:
                clock = {n: wire.signed(v) for n, _, v in wire.fields(wire.submessage(value))}
                snapshot.append([clock.get(n, 0) for n in (1, 2, 3, 4)])
        builtin = {clock: time for clock, time, _, _ in snapshot if clock < _FIRST_SEQUENCE_CLOCK}
        now = builtin.get(_BOOT_CLOCK, next(iter(builtin.values()), 0))
        self._offsets |= {clock: now - time for clock, time in builtin.items()}
        for number, value, incremental, unit in snapshot:
            if number >= _FIRST_SEQUENCE_CLOCK:
                sequence.clocks[number] = _Clock(value, now, unit or 1, bool(incremental))

    def _time(self, timestamp: int, clock: int, sequence: _Sequence) -> int:
        """Return a timestamp of a clock as nanoseconds of the trace's clock.

        An incremental clock moves on with every packet, whatever else the packet holds.
        """
        own = sequence.clocks.get(clock)
        if own is None:
            return timestamp + self._offsets.get(clock, 0)
        if own.incremental:
            own.time += timestamp * own.unit
            return own.time
        return own.time + (timestamp - own.value) * own.unit

    def _describe(self, content: bytes) -> None:
        """Take in the description of a track."""
        uuid, track = 0, _TrackInfo()
        for number, _, value in wire.fields(content):
            if number == 1:
                uuid = wire.signed(value)
            elif number in (2, 10):
                track.name = wire.text_of(value)
            elif number == 5:
                track.parent = wire.signed(value)
            elif number == 3:
                for inner, _, part in wire.fields(wire.submessage(value)):
                    if inner == 1:
                        track.process = wire.signed(part)
                    elif inner == 6:
                        track.process_name = wire.text_of(part)
            elif number == 4:
                parts = {n: v for n, _, v in wire.fields(wire.submessage(value))}
                track.thread = wire.signed(parts.get(1, 0)), wire.signed(parts.get(2, 0))
                if 5 in parts:
                    track.name = track.name or wire.text_of(parts[5])
        if uuid in self._tracks:
            track.open = self._tracks[uuid].open
        self._tracks[uuid] = track

    def _event(self, content: bytes, at: int, sequence: _Sequence, batch: list[Event]) -> None:
        kind, uuid, counter = 0, sequence.track, 0.0
        begun = _Slice("", "", at, {}, [])
        for number, _, value in wire.fields(content):
            if number == 9:
                kind = wire.signed(value)
            elif number == 11:
                uuid = wire.signed(value)
            elif number == 23:
                begun.name = wire.text_of(value)
            elif number == 10:
                begun.name = sequence.names.get((2, wire.signed(value)), "")
            elif number == 22:
                begun.category = begun.category or wire.text_of(value)
            elif number == 3:
                begun.category = begun.category or sequence.names.get((1, wire.signed(value)), "")
            elif number == 4:
                begun.args |= _annotation(wire.submessage(value), sequence)
            elif number in (36, 42, 47, 48):
                begun.flows.append(wire.signed(value))
            elif number == 30:
                counter = wire.signed(value)
            elif number == 44:
                counter = wire.double_of(value)
        track = self._tracks.setdefault(uuid, _TrackInfo())
        if kind == _BEGIN:
            track.open.append(begun)
        elif kind == _END and track.open:
            self._close(track.open.pop(), at, uuid, batch)
        elif kind == _END:
            self._unpaired += 1
        elif kind == _COUNTER and track.name.startswith(MEMORY_COUNTER):
            device = track.name.removeprefix(MEMORY_COUNTER)
            if _DEVICE.fullmatch(device) and math.isfinite(counter):
                thread = self._place(uuid)[2] if track.parent else None
                batch.append(memory_event(at, round(counter), int(device), thread=thread))

    def _close(self, ended: _Slice, at: int, uuid: int, batch: list[Event]) -> None:
        """Add a slice that ends, before those of the same time that ended within it."""
        process, row, thread = self._place(uuid)
        category = _ROCPROF.get(ended.category, ended.category)
        if self._categories[category] == UNKNOWN:
            on_device = code_by_process(f"{process} {row}", row, "", False) == DEVICE
            category = "kernel" if on_device else "user_annotation"
        args = EventArgs(**{_ARGS[k]: v for k, v in ended.args.items() if k in _ARGS})
        if self._categories[category] == DEVICE and args.stream is None:
            args.stream = uuid % 2**31
        event = range_event(category, ended.name, thread, ended.start, at, args)
        event.id = uuid
        position = len(batch)
        while position and _is_same_range(batch[position - 1], event):
            position -= 1
        batch.insert(position, event)
        for flow in ended.flows:
            phase = "f" if flow in self._started_flows else "s"
            self._started_flows.add(flow)
            batch.append(
                NanosecondEvent(phase, "flow", ended.name, *thread, flow, ended.start, None, None)
            )

    def _place(self, uuid: int) -> tuple[str, str, tuple[int, int]]:
        """Return the process and the row of a track, and the thread that its slices ran on.

        A track below that of a thread belongs to the thread.
        """
        row = self._tracks[uuid].name
        process, pid, seen = "", 0, set[int]()
        at = uuid
        while at in self._tracks and at not in seen:
            seen.add(at)
            track = self._tracks[at]
            if track.thread:
                return process, row, track.thread
            if track.process is not None:
                process, pid = track.process_name, track.process
                break
            process, at = track.name, track.parent
        return process, row, (pid, uuid)


def _is_same_range(event: Event, other: Event) -> bool:
    """Return whether two slices of one track, which is their id, begin and end together."""
    same = (event.ph, event.id, event.ts, event.dur)
    return same == ("X", other.id, other.ts, other.dur)


def _intern(content: bytes, sequence: _Sequence) -> None:
    """Take in texts that later packets name by their ids."""
    for number, _, value in wire.fields(content):
        if number in (1, 2, 3, 29):
            entry = {n: v for n, _, v in wire.fields(wire.submessage(value))}
            name = (number, wire.signed(entry.get(1, 0)))
            sequence.names[name] = wire.text_of(entry.get(2, b""))


def _annotation(content: bytes, sequence: _Sequence) -> dict[str, Any]:
    """Return an annotation of a slice by its name."""
    name = ""
    result: int | str | None = None
    for number, _, value in wire.fields(content):
        if number == 10:
            name = wire.text_of(value)
        elif number == 1:
            name = sequence.names.get((3, wire.signed(value)), "")
        elif number in (2, 3, 4, 7):
            result = wire.signed(value)
        elif number == 6:
            result = wire.text_of(value)
        elif number == 17:
            result = sequence.names.get((29, wire.signed(value)))
    return {name: result}


def _inflate(content: bytes) -> bytes:
    """Return compressed packets, inflated. Raises `WireError` for more than a GB."""
    inflater = zlib.decompressobj()
    inflated = inflater.decompress(content, _MOST_INFLATED)
    if inflater.unconsumed_tail:
        raise wire.WireError("packets that inflate to over a GB")
    return inflated
