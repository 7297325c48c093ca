"""The one thread that owns the device.

Pictures are encoded and sent beside it, often for a browser on the same machine: a core is left
to them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

from glassworld.engine.runtime.threads import threads_beside_others

Result = TypeVar("Result")


class DeviceThread:
    """Runs jobs one after another in the order they came.

    A player never has more than one block asked for, so order of arrival takes players in turn.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "device", _leave_a_core)
        self.waiting = 0

    async def run(self, job: Callable[[], Result]) -> Result:
        """The job's result, or its exception. A job once begun runs to its end."""
        self.waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, job)
        finally:
            self.waiting -= 1

    def later(self, job: Callable[[], None]) -> None:
        """Run `job` after those that wait, with nobody waiting for it but the log, if it fails."""
        self._thread.submit(job).add_done_callback(_log_failure)

    def close(self) -> None:
        """Finish the job that runs and drop the others."""
        self._thread.shutdown(wait=True, cancel_futures=True)


def _leave_a_core() -> None:
    torch.set_num_threads(threads_beside_others())


def _log_failure(job: Future[None]) -> None:
    error = None if job.cancelled() else job.exception()
    if error is not None:
        logging.getLogger(__name__).error("a job of the device's thread failed", exc_info=error)
