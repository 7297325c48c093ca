"""Generate the blocks that players wait for, in batches where their sessions allow it.

One forward pass for several sessions uses a device better than one pass for each. In a batch a
session gets the frames that it would get alone, except for the rounding of larger matmuls.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from itertools import groupby
from typing import TypeVar
from weakref import WeakSet

from glassworld.engine.actions.track import Action
from glassworld.engine.batch import SessionBatch, batch_key, supports_batching
from glassworld.engine.media.images import Frames
from glassworld.engine.pipeline import OnFrames
from glassworld.engine.runtime.device import synchronize
from glassworld.engine.runtime.transfer import HostCopy
from glassworld.engine.session import Session
from glassworld.play.live_session import BlockResult, FrameChunk, LiveSession, PlayerInput
from glassworld.profiling import registry as tags
from glassworld.profiling.stage_timer import StageTime, StageTimer
from glassworld.profiling.tags import listen, recording_number, tag

Result = TypeVar("Result")
Step = Callable[[Sequence[Action], OnFrames], list[Frames]]


class DeviceThread:
    """The one thread that uses the device; it runs jobs in the order in which they arrive.

    A player requests one block at a time, so players take turns.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, "device")
        self._closed = False
        self.waiting = 0  # jobs not finished yet that somebody waits for

    def begin(self, job: Callable[[], Result]) -> asyncio.Future[Result]:
        """Run `job` after the waiting ones, unless closed; once started, it runs to its end."""
        loop = asyncio.get_running_loop()
        if self._closed:
            cancelled: asyncio.Future[Result] = loop.create_future()
            cancelled.cancel()
            return cancelled
        result = loop.run_in_executor(self._executor, job)
        self.waiting += 1
        result.add_done_callback(self._count_done)
        return result

    def _count_done(self, _: object) -> None:
        self.waiting -= 1

    async def run(self, job: Callable[[], Result]) -> Result:
        """Run `job` like `begin` and return its result."""
        return await self.begin(job)

    def submit(self, job: Callable[[], None]) -> None:
        """Run `job` after the waiting ones, unless closed; if it fails, log the exception."""
        if not self._closed:
            self._executor.submit(job).add_done_callback(_log_failure)

    def close(self) -> None:
        """Finish the running job and those submitted, and take no more."""
        self._closed = True
        self._executor.shutdown(wait=True)


def _log_failure(job: Future[None]) -> None:
    error = None if job.cancelled() else job.exception()
    if error is not None:
        logging.getLogger("glassworld.play").error(
            "a job of the device thread failed", exc_info=error
        )


class BlockRequest:
    """A block that a player waits for: first its frames, chunk by chunk, then the result.

    The event loop creates it and reads the chunks; the device thread fills it.
    """

    def __init__(self, session: LiveSession, newest_input: Callable[[], PlayerInput]) -> None:
        self.session = session
        self.input: PlayerInput  # set when the block starts
        self.future: Future[BlockResult] = Future()
        self.result = asyncio.wrap_future(self.future)
        self._newest_input = newest_input
        self._loop = asyncio.get_running_loop()
        self._chunks: asyncio.Queue[FrameChunk | None] = asyncio.Queue()
        self.result.add_done_callback(lambda _: self._chunks.put_nowait(None))

    async def next_chunk(self) -> FrameChunk | None:
        """Wait for the next frames; return None after the last or after a failure."""
        return await self._chunks.get()

    def start(self) -> None:
        """Prepare the session for its block and fix the block's input."""
        self.session.prepare_block()
        self.input = self._newest_input()
        self.session.announce_block(self.input)

    def send_chunk(self, frames: HostCopy, row: int) -> None:
        """Hand over frames `[b, n, H, W, 3]` of a batch, in which the session has row `row`."""
        session = self.session
        chunk = FrameChunk(session.next_block, session.frame_count, self.input.id, frames, row)
        self._loop.call_soon_threadsafe(self._chunks.put_nowait, chunk)


class BlockScheduler:
    """Collects requests from the event loop and serves them on the device thread."""

    def __init__(self, device_thread: DeviceThread) -> None:
        self._device_thread = device_thread
        self._requests: deque[BlockRequest] = deque()
        self._batches: list[SessionBatch] = []
        self._open_sessions: WeakSet[LiveSession] = WeakSet()
        self._closing = False

    def request(
        self, session: LiveSession, newest_input: Callable[[], PlayerInput]
    ) -> BlockRequest:
        """Request the session's next block, ahead of all later jobs of the device thread.

        The device thread calls `newest_input` when it starts the block.
        """
        request = BlockRequest(session, newest_input)
        self._open_sessions.add(session)
        self._requests.append(request)
        self._device_thread.submit(lambda: self._serve(request))
        self._device_thread.waiting += 1
        request.result.add_done_callback(self._count_done)
        return request

    def _count_done(self, _: object) -> None:
        self._device_thread.waiting -= 1

    def close_session(self, session: LiveSession) -> None:
        """Close a session after the jobs that are waiting now."""
        self._open_sessions.discard(session)
        self._device_thread.submit(lambda: self._close_session(session))

    def close(self) -> None:
        """Drop the waiting blocks and close the sessions; close the device thread afterwards.

        A capture must end on the device thread: the garbage collector would end its profiler on
        another one, which crashes the process.
        """
        self._closing = True
        for session in list(self._open_sessions):
            self.close_session(session)

    # The device thread calls the methods below.

    def _serve(self, request: BlockRequest) -> None:
        """Serve all waiting requests, unless `request` was served together with an earlier one."""
        if request.future.running() or request.future.done():
            return
        ready = []
        while self._requests:
            waiting = self._requests.popleft()
            if waiting.future.set_running_or_notify_cancel():
                ready.append(waiting)
        with _failures_go_to(ready):
            for _, batch in groupby(sorted(ready, key=_batch_order), _batch_key):
                if self._closing:
                    raise CancelledError
                self._generate(list(batch))

    def _generate(self, requests: list[BlockRequest]) -> None:
        """Generate one block for each session; the sessions can form a batch."""
        with _failures_go_to(requests):
            frames, started, seconds, stages = self._step(requests)
            for request, own in zip(requests, frames, strict=True):
                with _failures_go_to([request]):  # a full disk concerns one player only
                    result = request.session.finish_block(
                        request.input, own, started, seconds, stages
                    )
                    request.future.set_result(result)

    def _step(
        self, requests: list[BlockRequest]
    ) -> tuple[list[Frames], float, float, list[StageTime]]:
        """Return the frames of each session, the start, the seconds and the stages of the step.

        Sorts `requests` like the rows of the batch. A function of its own: after a failure
        `_failures_go_to` clears its variables, which hold sessions.
        """
        step: Step = requests[0].session.step
        if len(requests) > 1:
            batch = self._batch([request.session.engine_session for request in requests])
            requests.sort(key=lambda request: batch.sessions.index(request.session.engine_session))
            step = batch.step
        for request in requests:
            request.start()

        def send_chunks(frames: HostCopy, sessions: range) -> None:
            for row, index in enumerate(sessions):
                requests[index].send_chunk(frames, row)

        timer = StageTimer(partial(synchronize, requests[0].session.world.device))
        started, stop_timer = time.perf_counter(), listen(timer)
        try:
            with _inference_tag():
                frames = step([request.input.action for request in requests], send_chunks)
        finally:
            stop_timer()
        return frames, started, time.perf_counter() - started, timer.stages

    def _batch(self, sessions: list[Session]) -> SessionBatch:
        """Return the batch of these sessions; dissolve others that contain any of them."""
        for batch in self._batches:
            if set(batch.sessions) == set(sessions):
                return batch
        new = SessionBatch(sessions)
        self._dissolve_batches(sessions)
        self._batches.append(new)
        return new

    def _dissolve_batches(self, sessions: list[Session]) -> None:
        """Dissolve batches with any of these sessions, so that none shares storage with others."""
        for batch in list(self._batches):
            if set(batch.sessions) & set(sessions):
                self._batches.remove(batch)
                batch.part(staying=sessions)

    def _close_session(self, session: LiveSession) -> None:
        engine_session = session.engine_session
        session.close()  # releases memory before the other sessions of its batch need some
        self._dissolve_batches([engine_session])
        del engine_session
        _trim_memory()


def _inference_tag() -> AbstractContextManager[None]:
    """Return the tag around a block; a capture opens one of its own, around all of its blocks."""
    return nullcontext() if recording_number() else tag(tags.PIPELINE_INFERENCE)


def _trim_memory() -> None:
    """Return freed memory to the system, where the C library can and would rather keep it."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def _failures_go_to(requests: Sequence[BlockRequest]) -> Iterator[None]:
    """Pass an exception on to all unfinished requests instead of raising it."""
    try:
        yield
    except BaseException as error:
        # Its frames hold sessions, whose size the garbage collector underestimates.
        traceback.clear_frames(error.__traceback__)
        for request in requests:
            if not request.future.done():
                request.future.set_exception(error)


def _batch_key(request: BlockRequest) -> tuple[int, ...]:
    """Return a key that is equal for sessions whose blocks can be generated in one batch."""
    session = request.session
    alone = session.is_capturing or not supports_batching(session.world)
    return (id(session),) if alone else (0, *batch_key(session.engine_session))


def _batch_order(request: BlockRequest) -> tuple[tuple[int, ...], int]:
    """Return a key that sorts requests by batch, then sessions of the same age side by side."""
    return _batch_key(request), request.session.next_block
