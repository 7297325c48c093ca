"""Where jobs are rendered: in this process, in several, or on a Ray cluster."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol

from glassworld.batch.jobs import PreparedJob
from glassworld.batch.render import JobResult, Renderer, StoppedError
from glassworld.engine.checkpoint.options import LoadOptions

POLL_SECONDS = 0.2


@dataclass(frozen=True)
class RenderOptions:
    """What a renderer is made of."""

    load: LoadOptions
    folder: Path
    threads: int

    def renderer(self) -> Renderer:
        """Return a renderer."""
        return Renderer(self.load, self.folder, self.threads)


class Executor(Protocol):
    """Renders jobs; yields each result when it is there, in any order.

    Close the generator to end early; nothing is kept of the jobs that are being rendered.
    """

    def run(self, jobs: Sequence[PreparedJob]) -> Generator[JobResult]:
        """Yield each job's result."""
        ...


@dataclass(frozen=True)
class InProcess:
    """Renders jobs in this process, one after another."""

    options: RenderOptions

    def run(self, jobs: Sequence[PreparedJob]) -> Generator[JobResult]:
        """Yield the result of each job."""
        renderer = self.options.renderer()
        for job in jobs:
            yield renderer.render(job)


@dataclass
class _Worker:
    """A process that renders jobs, and the job it has now."""

    process: Any
    connection: Connection
    job: PreparedJob | None = None


@dataclass
class Processes:
    """Renders jobs in several processes of this machine.

    A process that dies fails its job, and another one takes its place.
    """

    options: RenderOptions
    count: int
    _workers: list[_Worker] = field(default_factory=list)

    def run(self, jobs: Sequence[PreparedJob]) -> Generator[JobResult]:
        """Yield each job's result."""
        context = multiprocessing.get_context("spawn")
        stop = context.Event()
        waiting = deque(jobs)
        self._workers = [self._start(context, stop) for _ in range(min(self.count, len(jobs)))]
        try:
            while waiting or any(worker.job for worker in self._workers):
                for worker in self._workers:
                    if worker.job is None and waiting:
                        worker.job = waiting.popleft()
                        with suppress(BrokenPipeError):  # it has died, and is found so below
                            worker.connection.send(worker.job)
                yield from self._results(context, stop)
        finally:
            stop.set()
            self._end()

    def _start(self, context: Any, stop: Any) -> _Worker:
        ours, theirs = context.Pipe()
        arguments = (self.options, theirs, stop)
        process = context.Process(target=_render_jobs, args=arguments, daemon=True)
        with _ignoring_interrupts():  # the process inherits it, and so starts in peace
            process.start()
        theirs.close()
        return _Worker(process, ours)

    def _results(self, context: Any, stop: Any) -> Iterator[JobResult]:
        """Yield the results that are there, after waiting a moment for the first."""
        ready = wait([worker.connection for worker in self._workers if worker.job], POLL_SECONDS)
        for index, worker in enumerate(self._workers):
            if worker.connection not in ready or worker.job is None:
                continue
            job, worker.job = worker.job, None
            try:
                yield worker.connection.recv()
            except (EOFError, ConnectionError):
                worker.process.join()
                remove_leftovers(self.options.folder, [job])
                self._workers[index] = self._start(context, stop)
                reason = f"its process ended with exit code {worker.process.exitcode}"
                yield JobResult(job.id, job.line, "failed", error=reason)

    def _end(self) -> None:
        """Let all processes end after the block they are at."""
        for worker in self._workers:
            worker.connection.close()
        for worker in self._workers:
            worker.process.join()


@contextmanager
def _ignoring_interrupts() -> Iterator[None]:
    """Ignore Ctrl-C for a moment; does nothing in a thread, which gets none."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _render_jobs(options: RenderOptions, connection: Connection, stop: Any) -> None:
    """Render the jobs that come through a pipe until it is closed; Ctrl-C is the parent's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    renderer = options.renderer()
    parent = multiprocessing.parent_process()

    def stopped() -> bool:
        return bool(stop.is_set()) or (parent is not None and not parent.is_alive())

    with suppress(EOFError, ConnectionError, StoppedError):
        while True:
            connection.send(renderer.render(connection.recv(), stopped))


def remove_leftovers(folder: Path, jobs: Sequence[PreparedJob]) -> None:
    """Remove the unfinished videos of jobs whose renderer was killed."""
    ids = {job.id for job in jobs}
    for path in folder.glob(".*.mp4"):
        if path.name[1:].removesuffix(".mp4").rpartition(".")[0] in ids:
            path.unlink(missing_ok=True)


def usable_cores() -> int:
    """Return how many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
