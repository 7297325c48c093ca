"""Progress of long work, in a terminal and elsewhere, and Ctrl-C to end a run."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn, track

if TYPE_CHECKING:
    from glassworld.engine.rollout import BlockReport

Item = TypeVar("Item")
REPORT_EVERY_SECONDS = 60.0
"""Between the lines about long work that are printed where the output is no terminal."""
PLAIN_LINES = 10
"""Lines printed instead of a bar where the output is no terminal (a file, a pipe)."""


def show_progress(items: Iterable[Item], label: str, total: int) -> Iterator[Item]:
    """Yield the items and show how far the work on them is.

    In a terminal it draws a bar. Elsewhere it prints a line at the beginning, then at most one a
    minute, and one at the end. Of no work at all it shows nothing.

    Parameters
    ----------
    items
        What is worked on.
    label
        Says what is done.
    total
        Number of items.
    """
    console = Console()
    if total == 0:
        yield from items
        return
    if console.is_terminal:
        yield from track(items, label, total, console=console)
        return
    console.print(f"{label}: 0/{total}", highlight=False)
    began = printed = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if done and now - printed >= REPORT_EVERY_SECONDS:
            left = (now - began) / done * (total - done)
            console.print(f"{label}: {done}/{total}, {left:.0f} s left", highlight=False)
            printed = now
        yield item
    console.print(f"{label}: done in {time.monotonic() - began:.0f} s", highlight=False)


@contextmanager
def show_activity(console: Console, label: str) -> Iterator[None]:
    """Show that work goes on whose length is unknown: a spinner, or a line if no terminal."""
    if console.is_terminal:
        with console.status(label):
            yield
    else:
        console.print(label, highlight=False)
        yield


class BlockProgress:
    """Progress over blocks with frames per second and the time left.

    In a terminal it is a bar. Elsewhere it prints a line at the beginning, one for the first block,
    and then about `PLAIN_LINES` in all, but at least one a minute.

    Parameters
    ----------
    console
        Where to show it.
    total
        Number of blocks.
    """

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._total = total
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("block {task.completed}/{task.total}  {task.fields[rate]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("preparing", total=None, rate="")
        self._frames = 0
        self._printed = 0.0

    def __enter__(self) -> Self:
        self._bar.start()
        if self._bar.disable:
            self._console.print(f"block 0/{self._total}", highlight=False)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def block(self, report: BlockReport) -> None:
        """Show that a block is finished."""
        now = time.perf_counter()
        if report.index == 0:
            self._began = now - report.seconds
        self._frames += len(report.frames)
        rate = f"{self._frames / (now - self._began):.1f} fps"
        done, total = report.index + 1, report.total
        self._bar.update(
            self._task, description="generating", completed=done, total=total, rate=rate
        )
        is_tenth = done * PLAIN_LINES // total > (done - 1) * PLAIN_LINES // total
        is_due = done == 1 or is_tenth or now - self._printed >= REPORT_EVERY_SECONDS
        if self._bar.disable and is_due:
            left = (now - self._began) / done * (total - done)
            self._console.print(f"block {done}/{total}  {rate}  {left:.0f} s left", highlight=False)
            self._printed = now

    def stage(self, name: str) -> None:
        """Show the name of the current stage."""
        self._bar.update(self._task, description=name)


class Interrupt:
    """Ctrl-C: once ends the run after this block, twice aborts it."""

    def __init__(self, console: Console) -> None:
        self.asked = False
        self._console = console

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)
        if kind is KeyboardInterrupt:
            self._console.print("aborted")

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        signal.signal(signal.SIGINT, self._before)
        self._console.print("ending after this block; Ctrl-C again aborts")
