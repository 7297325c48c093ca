"""Profile the next blocks of a session: on the device thread, exported on another one."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from glassworld.errors import InputError
from glassworld.profiling import registry as tags
from glassworld.profiling.capture import Capture
from glassworld.profiling.tags import tag


class BlockCapture:
    """A full capture of the next blocks of a session.

    The trace shows the device, so it also contains the blocks of other players in between. The
    device thread calls `start`, `finish_block` and `discard`; any thread may call `export` after
    the last block.
    """

    def __init__(self, path: Path, blocks: int) -> None:
        self.path, self._failure = path, ""
        self._blocks_left = blocks
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
        self._blocks_left -= 1
        if self._blocks_left > 0 and not self._failure:
            return False
        self._tag.close()
        for capture in self._captures:
            capture.stop()
        return True

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
        capture.finish()
