"""Read the profile that JAX and XLA write (`.xplane.pb`): a protocol buffer `XSpace`.

Its schema is documented in `xplane.proto` of OpenXLA. A plane is a device or a host, a line a
stream, a row or a thread; events name their metadata, and lie at picoseconds from the start of
their line. An event finds its table by the names of its plane and line, as in the JSON of the same
profile.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from glassworld.trace.reading import wire
from glassworld.trace.reading.event_source import EventSource, name_event, range_event
from glassworld.trace.reading.events import Event, EventArgs

_PLANE = 1  # of XSpace
_ERRORS = 2
_ID, _NAME, _LINES, _EVENT_METADATA, _STAT_METADATA, _STATS = range(1, 7)  # of XPlane
_LINE_ID, _LINE_NAME, _TIMESTAMP_NS, _EVENTS, _DISPLAY_NAME = 1, 2, 3, 4, 11  # of XLine
_METADATA_ID, _OFFSET_PS, _DURATION_PS, _EVENT_STATS = 1, 2, 3, 4  # of XEvent
_STAT_ID, _DOUBLE, _UNSIGNED, _SIGNED, _TEXT, _REFERENCE = 1, 2, 3, 4, 5, 7  # of XStat
_KEY, _VALUE = 1, 2  # of an entry of a map
_METADATA_NAME, _METADATA_DISPLAY_NAME = 2, 4  # of XEventMetadata and XStatMetadata
_KINDS = {_ID: wire.VARINT} | dict.fromkeys(range(_NAME, _STATS + 1), wire.BYTES)
_EVENTS_AT_ONCE = 1 << 14
_STREAM = re.compile(r"^Stream #(\d{1,9})")
_CALL = re.compile(r"(?:cuda|cu|hip)[A-Z]")
_DEVICE = re.compile(r"^/device:.*:(\d{1,9})")


def is_xplane(start: bytes) -> bool:
    """Return whether a file begins like an `XSpace`: with a plane, which has a name."""
    found = wire.first_message(start)
    names = [value for number, _, value in found if number == _NAME]
    return (
        bool(names)
        and all(_KINDS.get(number) == kind for number, kind, _ in found)
        and wire.text_of(names[0]).isprintable()
    )


class XPlaneEvents(EventSource):
    """Reads the events of an `XSpace`, a plane at a time."""

    def events(self) -> Iterator[list[Event]]:
        """Yield the events of every plane, up to where the file is damaged."""
        try:
            for number, content in wire.messages(self.source.read):
                if number == _PLANE:
                    yield from _Plane(content).events()
                elif number == _ERRORS:
                    self.losses.append(f"the profiler reported: {wire.text_of(content)}")
        except wire.WireError as error:
            self.losses.append(f"the file is cut short or damaged: {error}")


class _Plane:
    """One device or host."""

    def __init__(self, content: bytes) -> None:
        self.name, self.lines = "", list[bytes]()
        self._event_names: dict[int, str] = {}
        self._stat_names: dict[int, str] = {}
        for number, _, value in wire.fields(content):
            if number == _NAME:
                self.name = wire.text_of(value)
            elif number == _LINES:
                self.lines.append(wire.submessage(value))
            elif number == _EVENT_METADATA:
                self._event_names |= _names(value, _METADATA_DISPLAY_NAME)
            elif number == _STAT_METADATA:
                self._stat_names |= _names(value, _METADATA_NAME)
        device = _DEVICE.match(self.name)
        self._device = int(device[1]) if device else None

    def events(self) -> Iterator[list[Event]]:
        """Yield the names of the plane and its lines, and the events on them."""
        if not self.lines:
            return
        yield [name_event("process", (self.name, 0), self.name)]
        for line in self.lines:
            yield from self._line(line)

    def _line(self, content: bytes) -> Iterator[list[Event]]:
        identifier, name, display_name, start = 0, "", "", 0
        contents = []
        for number, _, value in wire.fields(content):
            if number == _LINE_ID:
                identifier = wire.signed(value)
            elif number == _LINE_NAME:
                name = wire.text_of(value)
            elif number == _DISPLAY_NAME:
                display_name = wire.text_of(value)
            elif number == _TIMESTAMP_NS:
                start = wire.signed(value)
            elif number == _EVENTS:
                contents.append(wire.submessage(value))
        thread = (self.name, identifier)
        yield [name_event("thread", thread, display_name or name)]
        stream = _STREAM.match(display_name or name)
        lane = int(stream[1]) if stream else None
        for at in range(0, len(contents), _EVENTS_AT_ONCE):
            batch = contents[at : at + _EVENTS_AT_ONCE]
            yield [self._event(event, thread, start, lane) for event in batch]

    def _event(
        self, content: bytes, thread: tuple[str, int], start: int, lane: int | None
    ) -> Event:
        metadata = offset = duration = 0
        stats: dict[str, Any] = {}
        for number, _, value in wire.fields(content):
            if number == _METADATA_ID:
                metadata = wire.signed(value)
            elif number == _OFFSET_PS:
                offset = wire.signed(value)
            elif number == _DURATION_PS:
                duration = wire.signed(value)
            elif number == _EVENT_STATS:
                stats |= self._stat(value)
        name = self._event_names.get(metadata, f"event {metadata}")
        begin = start + round(offset / 1000)
        end = start + round((offset + duration) / 1000)
        args = EventArgs(
            correlation=stats.get("correlation_id"),
            stream=lane,
            device=self._device if lane is not None else None,
            bytes=stats.get("bytes"),
            step_num=stats.get("step_num"),
        )
        calls = args.correlation is not None or _CALL.match(name)
        category = "cuda_driver" if self._device is None and calls else None
        return range_event(category, name, thread, begin, end, args)

    def _stat(self, content: int | bytes) -> dict[str, Any]:
        name = ""
        result: int | float | str | None = None
        for number, _, value in wire.fields(wire.submessage(content)):
            if number == _STAT_ID:
                name = self._stat_names.get(wire.signed(value), "")
            elif number in (_UNSIGNED, _SIGNED):
                result = wire.signed(value)
            elif number == _DOUBLE:
                result = wire.double_of(value)
            elif number == _TEXT:
                result = wire.text_of(value)
            elif number == _REFERENCE:
                result = self._stat_names.get(wire.signed(value))
        return {name: result}


def _names(entry: int | bytes, preferred: int) -> dict[int, str]:
    """Return the name in an entry of a map from numbers to metadata; the preferred one if set."""
    key, found = 0, dict[int, str]()
    for number, _, value in wire.fields(wire.submessage(entry)):
        if number == _KEY:
            key = wire.signed(value)
        elif number == _VALUE:
            for inner, kind, text in wire.fields(wire.submessage(value)):
                if kind == wire.BYTES and inner in (_METADATA_NAME, preferred):
                    found[inner] = wire.text_of(text)
    return {key: found.get(preferred) or found.get(_METADATA_NAME, "")}
