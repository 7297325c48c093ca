"""`tag()`: marks a part of the program in the trace. Networks and engine import only this.

A tag is a `torch.profiler` user annotation, so every tool sees it. Off, a tag costs one global
read and a function call; names are formatted only while a trace is recorded. Inside a compiled
region a tag would vanish and its flag would force a recompilation, so compilation happens
between the tags and `tag()` is a no-op while tracing.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any

import torch

_enter = torch.autograd._record_function_with_args_enter  # type: ignore[attr-defined]
_exit = torch.autograd._record_function_with_args_exit  # type: ignore[attr-defined]

Listener = Callable[[str, dict[str, Any], float, float], None]
"""Called when a tag closes: its pattern, its fields, start and end in `perf_counter` seconds."""


class _Off:
    """The context manager of a tag nobody listens to."""

    __slots__ = ()

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


class _Annotation:
    """A profiler user annotation (2 µs; `record_function` takes 6 even with no profiler on)."""

    __slots__ = ("_handle", "_name")

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        self._handle = _enter(self._name)

    def __exit__(self, *_: object) -> None:
        _exit(self._handle)


class _Timed:
    """A tag that reports its interval to listeners, around whatever `inner` does."""

    __slots__ = ("_fields", "_inner", "_pattern", "_start")

    def __init__(
        self, pattern: str, fields: dict[str, Any], inner: AbstractContextManager[None]
    ) -> None:
        self._pattern = pattern
        self._fields = fields
        self._inner = inner

    def __enter__(self) -> None:
        self._inner.__enter__()
        self._start = time.perf_counter()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        end = time.perf_counter()
        self._inner.__exit__(kind, error, trace)
        for listener in _listeners:
            listener(self._pattern, self._fields, self._start, end)


_UNWRITABLE = re.compile(r"[^ !#-~]")

_OFF = _Off()
_recording = False
_recordings = 0
_listeners: tuple[Listener, ...] = ()
_silent = True  # neither recording nor listened to: one test on the hot path


def tag(pattern: str, **fields: Any) -> AbstractContextManager[None]:
    """Mark a part of the program: `with tag(BLOCK, block=3): ...`.

    `pattern` is a name of the registry or your own; `fields` fill its `{}` with Python
    numbers (a tensor would synchronize the device). Without fields the pattern is the name,
    braces and all. Costs under half a microsecond when nobody records or listens.
    """
    if torch.compiler.is_compiling():
        return nullcontext()  # the one idle context manager that compilation understands
    if _silent:
        return _OFF
    inner: AbstractContextManager[None] = _OFF
    if _recording:
        inner = _Annotation(_writable(pattern.format(**fields) if fields else pattern))
    return _Timed(pattern, fields, inner) if _listeners else inner


def _writable(name: str) -> str:
    """Return a name with "_" for what torch writes wrongly into a trace, or not at all.

    Quotation marks would end the name and make the file unreadable. With letters beyond ASCII or
    control characters torch calls the tag "unknown".
    """
    return _UNWRITABLE.sub("_", name)


def set_recording(on: bool) -> None:
    """Turn tags into annotations while a profiler is on; only the capture calls this."""
    global _recording, _recordings, _silent
    _recording = on
    _recordings += on
    _silent = not (_recording or _listeners)


def recording_number() -> int:
    """Return the number of the recording that is on, counted from 1; 0 if none is."""
    return _recordings if _recording else 0


def is_active() -> bool:
    """Return whether tags are recorded or listened to."""
    return not _silent


def listen(listener: Listener) -> Callable[[], None]:
    """Call `listener` at the end of every tag, until the function that this returns is called."""
    global _listeners, _silent
    _listeners = (*_listeners, listener)
    _silent = False

    def stop() -> None:
        global _listeners, _silent
        _listeners = tuple(other for other in _listeners if other is not listener)
        _silent = not (_recording or _listeners)

    return stop
