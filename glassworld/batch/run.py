"""A batch: read the jobs, render what is missing, keep an index, and say how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from glassworld.batch.executors import (
    Executor,
    InProcess,
    Processes,
    RenderOptions,
    remove_leftovers,
    usable_cores,
)
from glassworld.batch.index import INDEX, BatchIndex
from glassworld.batch.jobs import JobReader, PreparedJob
from glassworld.batch.render import JobResult
from glassworld.engine.checkpoint.load import check_choices, check_names
from glassworld.engine.checkpoint.options import LoadOptions
from glassworld.errors import InputError
from glassworld.files import DiskFullError, writable_folder
from glassworld.folder_lock import locked

PLAIN_SECONDS = 10.0
"""Time between two lines where the output is no terminal."""

FAILURES_SHOWN = 10


@dataclass(frozen=True)
class BatchOptions:
    """The flags of the command line; see its help for each."""

    jobs: Path
    output: Path
    workers: int | None = None
    threads: int = 1
    cluster: bool = False
    load: LoadOptions = field(default_factory=LoadOptions)


@dataclass(frozen=True)
class BatchOutcome:
    """How a batch ended."""

    done: int
    failed: int
    interrupted: bool


def run_batch(options: BatchOptions, console: Console | None = None) -> BatchOutcome:
    """Render the jobs that are not done yet.

    Raises `InputError`, before anything starts, for a malformed row, a folder that cannot be
    written or that another run writes to, or a missing extra. Ctrl-C ends the batch and keeps
    what is done; so does a full disk, which is a `DiskFullError`.
    """
    console = console or Console()
    if options.cluster:
        on_gpu = False
        check_names(options.load)  # other machines have the devices
        options.load.check_cluster_device()
    else:
        on_gpu = check_choices(options.load)[0].type != "cpu"
    jobs = JobReader(options.jobs, options.load).read()
    folder = writable_folder(options.output).resolve()
    with locked(folder, "batch"):
        index = BatchIndex(folder, jobs)
        missing = index.missing()
        remove_leftovers(folder, missing)
        already = len(jobs) - len(missing)
        if already:
            console.print(f"{already} of {len(jobs)} jobs are done already", highlight=False)
        executor = _executor(options, on_gpu, folder, len(missing), partial(_print_line, console))
        interrupted, full = _render(missing, executor, index, folder, console)
    _print_summary(console, index, folder, interrupted)
    if full:
        raise DiskFullError(full)
    return BatchOutcome(index.count("done"), index.count("failed"), interrupted)


def _render(
    missing: Sequence[PreparedJob],
    executor: Executor,
    index: BatchIndex,
    folder: Path,
    console: Console,
) -> tuple[bool, str]:
    """Render jobs and note their results.

    Returns whether Ctrl-C ended it, and the error of a full disk or "".
    """
    interrupted, full = False, ""
    progress = BatchProgress(console, len(missing))
    index.save()
    try:
        with progress, closing(executor.run(missing)) as results:
            for result in results:
                index.add(result)
                progress.add(result)
                if result.state == "pending":
                    full = result.error
                    break
    except KeyboardInterrupt:
        interrupted = True
    finally:
        remove_leftovers(folder, index.missing())
        index.save()
    return interrupted, full


def _executor(
    options: BatchOptions, on_gpu: bool, folder: Path, jobs: int, report: Callable[[str], None]
) -> Executor:
    """Return what renders the jobs; raise `InputError` for a number of workers that is none."""
    if options.threads < 1 or (options.workers is not None and options.workers < 1):
        raise InputError("workers, threads: must be at least 1")
    render = RenderOptions(options.load, folder, options.threads)
    workers = options.workers or max(1, usable_cores() // options.threads)
    if options.cluster:
        from glassworld.batch.cluster import RayCluster

        return RayCluster(render, options.workers or max(1, jobs), report)
    if on_gpu and options.workers is None:
        workers = 1  # which keeps a GPU busy
    return InProcess(render) if min(workers, jobs) <= 1 else Processes(render, workers)


class BatchProgress:
    """How many jobs are done, and how long the others will take."""

    def __init__(self, console: Console, total: int) -> None:
        self._console, self._total = console, total
        self._done = self._failed = 0
        self._began = self._printed = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} jobs  {task.fields[note]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("rendering", total=total, note="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def add(self, result: JobResult) -> None:
        """Count a job."""
        self._done += 1
        self._failed += result.state == "failed"
        now = time.monotonic()
        left = (now - self._began) / self._done * (self._total - self._done)
        note = f"{format_seconds(left)} left" + (f", {self._failed} failed" * (self._failed > 0))
        self._bar.update(self._task, completed=self._done, note=note)
        ended = self._done == self._total
        if self._bar.disable and (ended or now - self._printed > PLAIN_SECONDS or self._done == 1):
            self._printed = now
            self._console.print(f"{self._done}/{self._total} jobs  {note}", highlight=False)


def format_seconds(seconds: float) -> str:
    """Return a duration such as 1 h 02 min, 3 min 20 s or 12 s."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def _print_summary(console: Console, index: BatchIndex, folder: Path, interrupted: bool) -> None:
    """Print how many jobs are done, which failed and what to do next."""
    line = partial(_print_line, console)
    failures, pending = index.failures(), index.count("pending")
    for failure in failures[:FAILURES_SHOWN]:
        line(f"failed: line {failure.line} ({failure.id}): {failure.error}")
    if len(failures) > FAILURES_SHOWN:
        line(f"and {len(failures) - FAILURES_SHOWN} more failures: see the index")
    if interrupted:
        line("interrupted; what is done is kept")
    line(f"{index.count('done')} done, {len(failures)} failed, {pending} pending")
    line(f"videos and {INDEX} in {folder}")
    if failures or pending:
        line("run the same command again to render what is missing")


def _print_line(console: Console, text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True, markup=False)
