"""Processes that collect episodes, and end with the process that started them, however it ends."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from glassworld.errors import InputError

CLOSING_SECONDS = 5.0
"""What a worker has to close its simulator when it is left alone."""


@contextmanager
def worker_map(workers: int) -> Iterator[Callable[..., Iterable[int]]]:
    """Yield a `map` over processes, or the ordinary one for a single worker.

    After an exception nothing waits for what the processes were doing: they are ended.

    Raises
    ------
    InputError
        A process was killed, such as for want of memory.
    """
    if workers == 1:
        yield map
        return
    # A new interpreter per worker: torch's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(workers, context, initializer=_follow_parent) as executor:
        try:
            yield executor.map
        except BrokenProcessPool as error:
            raise InputError(
                "a process that collects was killed, such as for want of memory; try fewer "
                "--threads"
            ) from error
        except BaseException:
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            raise


def _follow_parent() -> None:
    """End what a worker does by an exception when it is terminated, or when its parent is gone."""
    signal.signal(signal.SIGTERM, _end_task)
    threading.Thread(target=_watch_parent, daemon=True).start()


def _end_task(number: int, _: object) -> None:
    raise SystemExit(128 + number)


def _watch_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(CLOSING_SECONDS)
    os._exit(1)
