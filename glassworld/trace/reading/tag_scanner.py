"""Find the tags in the text of a trace without decoding anything else."""

from __future__ import annotations

import re
from collections.abc import Iterator

from glassworld.trace.reading.categories import TAG, old_operator_code
from glassworld.trace.reading.events import Event, EventStream, second_trace
from glassworld.trace.reading.source import event_boundaries, first_boundary

_CATEGORY = b'"user_annotation"'
_OLD_CATEGORY = b'"Operator"'  # of all operators in torch 1.8, and of its steps, which are tags
_OLD_STEP = b'"ProfilerStep#'
_END = re.compile(rb"\}\s*(?:,\s*\{|\]|$)")
_SECOND_TRACE = b'"traceEvents"'
_SECOND_ARRAY = re.compile(rb"\}\s*\]\s*[\[{]")
_MOST_BRACES = 4  # an event's arguments may stand before its category


class TagStream(EventStream):
    """Iterates over a trace's tags only, several times faster than over all events.

    The metadata behind the events is not read.
    """

    def __iter__(self) -> Iterator[list[Event]]:
        rest = self.source.open_events()
        if self.source.head != b"[":
            self._keep_metadata(self.source.head + b"]}")
        marks: tuple[bytes, ...] = ()
        while block := self.source.read():
            marks = marks or _marks(rest + block)
            first, last = first_boundary(block), next(event_boundaries(block, most=1), None)
            if first is None or last is None:
                rest += block
                continue
            joined = rest + block[: first[0]]  # joining whole blocks would take as long as the scan
            yield self._tags(joined, 0, len(joined), marks)
            yield self._tags(block, first[1], last[0], marks)
            rest = block[last[1] :]
        yield self._tags(rest, 0, len(rest), marks or _marks(rest))

    def _tags(self, text: bytes, start: int, stop: int, marks: tuple[bytes, ...]) -> list[Event]:
        """Decode the tags between two places in `text`, which hold one of `marks`.

        Raises `TraceError` if another trace begins there.
        """
        if text.find(_SECOND_TRACE, start, stop) >= 0 or (
            self.source.head == b"[" and _SECOND_ARRAY.search(text, start, stop)
        ):
            raise second_trace(self.source)
        events: list[Event] = []
        following = {mark: text.find(mark, start, stop) for mark in marks}
        while max(following.values()) >= 0:
            at = min(at for at in following.values() if at >= 0)
            brace = _END.search(text, at, stop)
            end = brace.start() + 1 if brace else stop
            events += self._event_around(text, at, end)
            for mark, earlier in following.items():
                if 0 <= earlier < end:
                    following[mark] = text.find(mark, end, stop)
        return events

    def _event_around(self, text: bytes, at: int, end: int) -> list[Event]:
        """Decode the tag that ends at `end` and has its mark at `at`; none if unreadable."""
        start = at
        for _ in range(_MOST_BRACES):
            start = text.rfind(b"{", 0, start)
            if start < 0:
                break
            events = self._decode(b"[" + text[start:end] + b"]")
            if events:
                return [event for event in events if _is_tag(event)]
        self.unreadable += 1
        return []


def _marks(first_piece: bytes) -> tuple[bytes, ...]:
    """Return the texts that tell a tag: in files of torch 1.8, also the names of its steps."""
    return (_CATEGORY, _OLD_STEP) if _OLD_CATEGORY in first_piece else (_CATEGORY,)


def _is_tag(event: Event) -> bool:
    old_step = event.cat == "Operator" and old_operator_code(event.name) == TAG
    return event.cat == "user_annotation" or old_step
