"""Decode the events of a trace into typed structs, piece by piece, and repair broken ones.

The values of events may be of any JSON type; what converts them to integers is here too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from operator import attrgetter
from typing import Any, cast

import msgspec
import numpy as np

from glassworld.errors import TraceError
from glassworld.trace.reading.columns import Ints
from glassworld.trace.reading.source import TraceFile, event_boundaries, split_events


class EventArgs(msgspec.Struct, gc=False):
    """The arguments of an event that the analysis reads; each may be of any JSON type."""

    correlation: Any = None
    stream: Any = None
    device: Any = None
    bytes: Any = None
    name: Any = None
    step_num: Any = None
    graph_node: Any = msgspec.field(default=None, name="graph node id")
    label: Any = msgspec.field(default=None, name="str")
    annotation: Any = None
    wait_on_stream: Any = None
    wait_on_cuda_event_record_corr_id: Any = None
    total_allocated: Any = msgspec.field(default=None, name="Total Allocated")
    allocated: Any = msgspec.field(default=None, name="Bytes")
    device_type: Any = msgspec.field(default=None, name="Device Type")
    device_id: Any = msgspec.field(default=None, name="Device Id")
    input_shapes: msgspec.Raw = msgspec.field(default=msgspec.Raw(), name="Input Dims")
    input_types: msgspec.Raw = msgspec.field(default=msgspec.Raw(), name="Input type")
    input_strides: msgspec.Raw = msgspec.field(default=msgspec.Raw(), name="Input Strides")
    input_values: msgspec.Raw = msgspec.field(default=msgspec.Raw(), name="Concrete Inputs")

    def inputs(self) -> bytes:
        """Return what was recorded of an operator's inputs, as a JSON list; see `Trace.inputs`."""
        recorded = (self.input_shapes, self.input_types, self.input_strides, self.input_values)
        return b"[%b]" % b",".join(bytes(part) or b"null" for part in recorded)

    def graph_label(self) -> str:
        """Return the label of an operation in a graph, given to `mark_kernels`; "" for none.

        A dictionary's fields are written one by one, so of those only a `name` is told apart.
        """
        labels = (self.label, self.name, self.annotation) if self.graph_node else ()
        return next((label for label in labels if isinstance(label, str) and label), "")


_NO_TIME = -1e18
_KNOWN_SCHEMA = 1  # the newest known `schemaVersion` of torch.profiler
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class Event(msgspec.Struct, gc=False):
    """One event; times in microseconds. An event without `ts` gets an impossible time."""

    ph: Any = ""
    cat: Any = None
    name: Any = ""
    pid: Any = None
    tid: Any = None
    id: Any = None
    ts: float = _NO_TIME
    dur: float | None = None
    args: EventArgs | str | float | bool | list[Any] | None = None


class _ExactEvent(Event, gc=False):
    """An event whose times keep every decimal digit of the text."""

    ts: Decimal = Decimal(_NO_TIME)  # type: ignore[assignment]
    dur: Decimal | None = None  # type: ignore[assignment]


class NanosecondEvent(Event, gc=False):
    """An event of a file that is no JSON; its times are integer nanoseconds."""

    ts: int = 0
    dur: int | None = None


EXACT_BELOW_US = 2.0**43
"""Below this, a float64 of microseconds still tells nanoseconds apart (100 days of them)."""

_BEGIN = attrgetter("ts")
_FLOAT = msgspec.json.Decoder(list[Event])
_EXACT = msgspec.json.Decoder(list[_ExactEvent])
_SINGLE = msgspec.json.Decoder(_ExactEvent)
_RAW = msgspec.json.Decoder(list[dict[str, Any]], float_hook=Decimal)
_PIECES = msgspec.json.Decoder(list[msgspec.Raw])
_NOT_CLOSED = "the file ends before its event list is closed"
_CONTROL = bytes.maketrans(bytes(range(32)), b" " * 32)
_REPAIRED = re.compile(
    rb'"(?:[^"\\]|\\.)*"'  # a string
    rb"|,(?=\s*[\]}])"  # a comma behind the last member
    rb"|(?<=[:\[,])\s*[-+]?(?:nan|inf|infinity|n/a)(?=\s*[,\]}])",
    re.IGNORECASE | re.DOTALL,
)
_BAD_ESCAPE = re.compile(
    rb'(?<!\\)(?:\\\\)*(?:\\(?!["\\/bfnrt]|u[0-9a-fA-F]{4})'
    rb"|\\u[dD][89abAB]..(?!\\u[dD][c-fC-F])"  # the first half of a pair alone
    rb"|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F])"  # the second half alone
)
_NAME_LINE = re.compile(rb'^(\s*"name": ")(.*)(",?\s*)$', re.MULTILINE)
_QUOTE = re.compile(rb'(\\.)|"')
_BACKSLASH = re.compile(rb'(\\["\\])|\\')
_SECOND_TRACE = re.compile(rb'"traceEvents"\s*:\s*\[|[}\]]\s*\[\s*\{')
"""In what is no event: another trace begins. Between two lists of JSON there would be a comma."""
_CLOSING = re.compile(rb'\}\s*,?\s*\](?=\s*(?:\}|,\s*"|$))')


class EventStream:
    """Iterates over a trace's events in file order, a list per piece, in bounded memory.

    `metadata` is complete once iteration has ended: every top-level key but `traceEvents`.
    """

    def __init__(self, source: TraceFile) -> None:
        self.source = source
        self.metadata: dict[str, Any] = {}
        self.unreadable = 0
        self._exact = False
        self._raw = False

    @property
    def bytes_read(self) -> int:
        """How much of the file has been read so far, decompressed."""
        return self.source.bytes_read

    @property
    def losses(self) -> list[str]:
        """Sentences about everything that could not be read."""
        losses = [*self.source.losses]
        if self.unreadable:
            what = "1 event" if self.unreadable == 1 else f"{self.unreadable} events"
            losses.append(f"{what} could not be read")
        version = self.metadata.get("schemaVersion")
        if isinstance(version, int) and version > _KNOWN_SCHEMA:
            losses.append(
                f"the trace has schema {version}, which is later than the known ones: what is new "
                "in it is not read"
            )
        return losses

    def raw(self) -> Iterator[list[dict[str, Any]]]:
        """Yield the events with everything in them, as dictionaries; decimals stay exact."""
        self._raw = True
        for events in self:
            yield cast(list[dict[str, Any]], events)

    def __iter__(self) -> Iterator[list[Event]]:
        buffer = self.source.open_events()
        if self.source.head != b"[":
            self._keep_metadata(self.source.head + b"]}")
        while block := self.source.read():
            events, buffer = self._take(buffer + block if buffer else block)
            if events:
                yield events
            del events  # recorded inputs are views: they would keep their piece of the file
        yield self._last(buffer)

    def _take(self, buffer: bytes) -> tuple[list[Event], bytes]:
        """Decode all but the last, perhaps incomplete, event of `buffer`; return also the rest."""
        for end, start in event_boundaries(buffer):
            events = self._decode(b"".join((b"[", memoryview(buffer)[:end], b"]")))
            if events is not None:
                return events, buffer[start:]
        pieces = split_events(buffer)
        return self._salvage(pieces[:-1]), pieces[-1]

    def _last(self, buffer: bytes) -> list[Event]:
        """Decode the events up to the end of the array, and the metadata behind it."""
        closing = b"}" if self.source.head == b"[" else b""
        for text in _attempts(b'{"traceEvents":[' + buffer + closing):
            try:
                parts = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
                pieces = [bytes(piece) for piece in _PIECES.decode(parts["traceEvents"])]
            except _UNREADABLE:
                continue
            self._keep_metadata(text, parts)
            events = self._decode(bytes(parts["traceEvents"]))
            return self._salvage(pieces) if events is None else events
        return self._cut_short(buffer)

    def _cut_short(self, buffer: bytes) -> list[Event]:
        """Decode what is left of a file that ends in the middle."""
        if not buffer.strip():
            self.source.losses.append(_NOT_CLOSED)
            return []
        pieces = split_events(buffer)
        self._refuse_second_trace(pieces[-1])
        if end := self._end_of_events(pieces[-1]):  # only an event in it is broken
            return self._salvage([*pieces[:-1], pieces[-1][:end]])
        at = len(buffer)
        for _ in range(4):  # the last brace may close an event's arguments, not the event
            at = buffer.rfind(b"}", 0, at)
            events = self._decode(b"[" + buffer[: at + 1] + b"]") if at >= 0 else None
            if events is not None:
                rest = buffer[at + 1 :].strip()
                if rest in (b"", b","):  # the format of an array may leave out its end
                    if self.source.head != b"[":
                        self.source.losses.append(_NOT_CLOSED)
                    return events
                self.source.losses.append(
                    f"the file ends in the middle: its last {len(rest)} bytes are lost"
                )
                return events
        self.source.losses.append(
            f"the file ends in the middle: its last {len(pieces[-1])} bytes are lost"
        )
        return self._salvage(pieces[:-1])

    def _end_of_events(self, piece: bytes) -> int:
        """Return where the last event of a whole file ends; 0 if the file is cut short.

        The metadata behind it is kept.
        """
        for closing in _CLOSING.finditer(piece):
            text = b'{"traceEvents":[]' + piece[closing.end() :]
            for attempt in _attempts(text + b"}" if self.source.head == b"[" else text):
                try:
                    parts = msgspec.json.decode(attempt, type=dict[str, msgspec.Raw])
                except _UNREADABLE:
                    continue
                self._keep_metadata(attempt, parts)
                return closing.start() + 1
        return 0

    def _decode(self, text: bytes) -> list[Event] | None:
        """Decode the events of a JSON array; return None if it is no array of events."""
        for attempt in _attempts(text):
            try:
                if self._raw:
                    return cast(list[Event], _RAW.decode(attempt))
                events = self._decode_times(attempt)
            except _UNREADABLE:
                continue
            return events
        return None

    def _decode_times(self, text: bytes) -> list[Event]:
        """Decode events with times as floats, or exactly if they are large or are strings."""
        if not self._exact:
            try:
                events = _FLOAT.decode(text)
            except msgspec.ValidationError:
                return list[Event](_EXACT.decode(text))
            self._exact = max(map(_BEGIN, events), default=0.0) >= EXACT_BELOW_US
            if not self._exact:
                return events
        return list[Event](_EXACT.decode(text))

    def _salvage(self, pieces: list[bytes]) -> list[Event]:
        """Decode the pieces that are an event by themselves, and count the others."""
        events: list[Event] = []
        for piece in pieces:
            for attempt in _attempts(piece):
                try:
                    events.append(self._decode_single(attempt))
                    break
                except _UNREADABLE:
                    continue
            else:
                self._refuse_second_trace(piece)
                self.unreadable += 1
        return events

    def _refuse_second_trace(self, text: bytes) -> None:
        """Raise `TraceError` if another trace begins in a text that is no event."""
        if _SECOND_TRACE.search(text):
            raise second_trace(self.source)

    def _decode_single(self, text: bytes) -> Event:
        if self._raw:
            return cast(Event, _RAW.decode(b"[" + text + b"]")[0])
        return _SINGLE.decode(text)

    def _keep_metadata(self, text: bytes, parts: dict[str, msgspec.Raw] | None = None) -> None:
        for attempt in () if parts else _attempts(text):
            try:
                parts = msgspec.json.decode(attempt, type=dict[str, msgspec.Raw])
                break
            except _UNREADABLE:
                continue
        if parts is None:
            self.source.losses.append("the metadata in front of the events is not valid JSON")
            return
        for key, raw in parts.items():
            if key != "traceEvents":
                self.metadata[key] = msgspec.json.decode(raw)


def second_trace(source: TraceFile) -> TraceError:
    """Return the error about a file in which one trace was written behind another."""
    return TraceError(
        f"{source.path}: holds two traces, one behind the other: name the files that it was made "
        "of; `glassworld trace merge` takes several"
    )


def _attempts(text: bytes) -> Iterator[bytes]:
    """Yield `text`, and should that be refused, `text` with the usual mistakes repaired."""
    yield text
    yield _repaired(text)
    yield _repaired(_NAME_LINE.sub(_quoted, text))


def _repaired(text: bytes) -> bytes:
    repaired = _REPAIRED.sub(_repair, text.translate(_CONTROL))
    return repaired.decode("utf-8", "replace").encode()


def _quoted(line: re.Match[bytes]) -> bytes:
    """Return a line of torch's exporter with a name whose quotes it did not escape, escaped."""
    return line[1] + _QUOTE.sub(lambda m: m[1] or rb"\"", line[2]) + line[3]


def _repair(match: re.Match[bytes]) -> bytes:
    """Return what stands for a string, a comma at the end of a list, or no number."""
    text = match[0]
    if text.startswith(b'"'):  # with one bad escape, as in paths of Windows, none is meant as one
        bad = b"\\" in text and _BAD_ESCAPE.search(text)
        return _BACKSLASH.sub(lambda m: m[1] or rb"\\", text) if bad else text
    return b"" if text.startswith(b",") else b" null"


_FAR_US = 4 * 10**15  # late in this century; int64 nanoseconds hold the sum of two of these
FAR_NS = _FAR_US * 1000
"""Later or earlier than any clock: times are cut to this."""


def to_nanoseconds(times: list[Any], kind: type[Event]) -> Ints:
    """Convert the times of events of one kind to integer nanoseconds.

    They are microseconds, as floats or decimals, or nanoseconds already. Times further from 0 than
    any clock are cut to `FAR_NS`.
    """
    if kind is NanosecondEvent:
        return np.array([max(-FAR_NS, min(FAR_NS, value)) for value in times], dtype=np.int64)
    if kind is not Event:
        return np.array([_nanoseconds(value) for value in times], dtype=np.int64)
    values = np.clip(np.array(times, dtype=np.float64), -_FAR_US, _FAR_US)
    return np.rint(values * 1000.0).astype(np.int64)


def _nanoseconds(microseconds: Any) -> int:
    try:
        nanoseconds: int = round(max(-_FAR_US, min(_FAR_US, microseconds)) * 1000)
        return nanoseconds
    except ArithmeticError:  # not a number
        return FAR_NS


def to_small_ints(values: list[Any]) -> Ints:
    """Convert stream and device numbers; 0 for what is none."""
    numbers = to_ints(values, 0)
    return np.where(np.abs(numbers) < 2**31, numbers, 0)


def to_ints(values: list[Any], otherwise: int) -> Ints:
    """Convert any JSON values to integers; `otherwise` for what is none or too large."""
    if set(map(type, values)) == {int}:
        numbers = np.array(values)
        if numbers.dtype == np.int64 and -(2**62) < numbers.min() <= numbers.max() < 2**62:
            return numbers
    return np.array([_to_int(value, otherwise) for value in values], dtype=np.int64)


def hashable(value: Any) -> Any:
    """Return a hashable stand-in for a JSON value: its text if it is a list or an object."""
    try:
        hash(value)
    except TypeError:
        return str(value)
    return value


def to_identifiers(values: list[Any]) -> Ints:
    """Convert correlation ids; -1 for none. Of a longer one than fits, the last 61 bits count."""
    ids = to_ints(values, -1)
    for i in np.flatnonzero(ids == -1).tolist() if (ids == -1).any() else ():
        if isinstance(values[i], int | str) and re.fullmatch(r"\d{19,}", str(values[i])):
            ids[i] = int(values[i]) % 2**61
    return ids


def exact_number(value: Any) -> Decimal | None:
    """Return a number of any JSON type, or the text of one; None for what is none or too large."""
    try:
        number = Decimal(value)
    except (ArithmeticError, TypeError, ValueError):
        return None
    return number if number.is_finite() and abs(number) < 2**62 else None


def _to_int(value: Any, otherwise: int) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        return otherwise
    return number if -(2**62) < number < 2**62 else otherwise
