"""Profile the next blocks of a session: on the device thread, exported by a process of its own."""

from __future__ import annotations

import os
import signal
import sys
import time
import warnings
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import torch

from glassworld.errors import InputError
from glassworld.profiling import registry as tags
from glassworld.profiling.capture import Capture, save_trace
from glassworld.profiling.tags import tag

MAX_EVENTS = 50_000
"""Events of a capture beside other players: two blocks of the maze.

Stopping the profiler holds Python's lock, so that nobody gets a frame meanwhile: for about 4
microseconds an event on one core of an AMD EPYC.
"""

CHILD_SECONDS, POLL_SECONDS = 60.0, 0.02
"""How long a fork may take to write a trace, and how often to look whether it has ended."""


class BlockCapture:
    """A full capture of the next blocks of a session.

    The trace shows the device, so it also contains the blocks of other players in between. The
    device thread calls `start`, `finish_block` and `discard`; any thread may call `export` after
    the last block.

    With `max_events`, it profiles one block to count its events, and then as many as are within
    that limit, but at least one. `blocks` says how many of the `requested` ones.
    """

    def __init__(self, path: Path, blocks: int, max_events: int | None = None) -> None:
        self.path, self._failure = path, ""
        self.requested = self.blocks = self._blocks_left = blocks
        self._max_events = max_events if blocks > 1 else None
        self._captures: list[Capture] = []  # one, from the start to `export` or `discard`
        self._tag = ExitStack()

    def start(self) -> None:
        """Start the profiler unless it is running; `export` raises an error if it cannot start."""
        if self._captures or self._failure:
            return
        try:
            self._captures.append(Capture(self.path, "full"))
            self._captures[0].start()
            self._tag.enter_context(tag(tags.PIPELINE_INFERENCE))
        except (InputError, RuntimeError):
            self.discard()
            self._failure = "the profiler is in use"

    def finish_block(self) -> bool:
        """Count a block; stop the profiler and return True after the last or after a failure."""
        if self._max_events is not None and self._captures:
            self._limit_blocks(self._max_events)
            return False
        self._blocks_left -= 1
        if self._blocks_left > 0 and not self._failure:
            return False
        self._tag.close()
        for capture in self._captures:
            capture.stop()
        return True

    def _limit_blocks(self, max_events: int) -> None:
        """Set the number of blocks by the events of the first one, and begin again."""
        self._tag.close()
        self._captures[0].stop()
        fitting = max_events // max(1, self._captures[0].event_count)
        self.blocks = self._blocks_left = max(1, min(self.blocks, fitting))
        self._max_events = None
        self.discard()

    def discard(self) -> None:
        """Stop the profiler and forget what it recorded, unless the export has begun."""
        self._tag.close()
        while self._captures:
            capture = self._captures.pop()
            capture.discard()
            capture.finish()

    def export(self) -> None:
        """Write the trace; raise `InputError` if there is none or it cannot be written."""
        try:
            capture = self._captures.pop()  # from here on, `discard` does nothing
        except IndexError:
            raise InputError(self._failure or "its session has ended") from None
        capture.finish(save_in_child)


def save_in_child(profiler: Any, path: Path) -> None:
    """Write a profiler's trace in a fork of this process, whose Python lock nobody waits for.

    A fork holds it for an eighth of the time. This process writes where forks are not safe (outside
    Linux, and once CUDA has started), and after a fork that failed.
    """
    has_cuda: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    if sys.platform != "linux" or has_cuda or not _written_by_fork(profiler, path):
        save_trace(profiler, path)


def _written_by_fork(profiler: Any, path: Path) -> bool:
    """Return whether a fork has written the trace; the caller's memory stays as it was."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other threads run, and the child uses none of theirs
        child = os.fork()
    if child == 0:
        status = 1
        with suppress(BaseException):
            save_trace(profiler, path)
            status = 0
        os._exit(status)
    return _exit_code(child) == 0


def _exit_code(child: int) -> int:
    """Wait for a child process; kill one that takes too long, and return its exit code."""
    end = time.monotonic() + CHILD_SECONDS
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(POLL_SECONDS)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
