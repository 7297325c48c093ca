"""Rounds: the blocks that players wait for, made together where their walks can.

One forward for several sessions uses a device better than one after another. A session's part of
it is what it would make alone, up to the rounding of larger products.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from typing import NamedTuple

from glassworld.engine.actions.track import Action
from glassworld.engine.batch import SessionBatch, batch_key, supports_batching
from glassworld.engine.pipeline import OnFrames
from glassworld.engine.rollout import Frames
from glassworld.engine.runtime.device import synchronize
from glassworld.engine.runtime.transfer import HostCopy
from glassworld.engine.world import Session
from glassworld.play.live_session import (
    Begun,
    BlockResult,
    FrameChunk,
    LiveSession,
    PlayerInput,
    Timing,
)
from glassworld.play.stage_timer import StageTimer
from glassworld.play.worker import DeviceThread
from glassworld.profiling.tags import listen

Step = Callable[[Sequence[Action], OnFrames], list[Frames]]


class BlockRequest(NamedTuple):
    """A block that a player waits for."""

    walk: LiveSession
    order: Callable[[], PlayerInput]  # the newest, asked for when the block is begun
    hand_out: Callable[[FrameChunk], None]
    made: Future[BlockResult]


class BlockScheduler:
    """Asked from the event loop, made on the worker's thread."""

    def __init__(self, worker: DeviceThread) -> None:
        self._worker = worker
        self._wanted: deque[BlockRequest] = deque()
        self._batches: list[SessionBatch] = []

    def make(
        self,
        walk: LiveSession,
        order: Callable[[], PlayerInput],
        hand_out: Callable[[FrameChunk], None],
    ) -> asyncio.Future[BlockResult]:
        """The walk's next block, before whatever the worker is asked for after this call.

        `hand_out` is given its parts as they are made.
        """
        made: Future[BlockResult] = Future()
        self._wanted.append(BlockRequest(walk, order, hand_out, made))
        self._worker.later(lambda: self._run(made))
        self._worker.waiting += 1
        making = asyncio.wrap_future(made)
        making.add_done_callback(self._waited)
        return making

    def _waited(self, _: object) -> None:
        self._worker.waiting -= 1

    def end(self, walk: LiveSession) -> None:
        """Close a walk, once what was asked for before is done."""
        self._worker.later(lambda: self._close(walk))

    def close(self) -> None:
        """Give up what was asked for; the worker has been closed."""
        while self._wanted:
            self._wanted.popleft().made.cancel()

    # On the worker's thread

    def _run(self, made: Future[BlockResult]) -> None:
        """Make what waits, unless an earlier round took this one along."""
        if made.running() or made.done():
            return
        wanted = []
        while self._wanted:
            each = self._wanted.popleft()
            if each.made.set_running_or_notify_cancel():
                wanted.append(each)
        with _told(wanted):
            for _, group in groupby(sorted(wanted, key=_sorting), _sorting):
                self._make(list(group))

    def _make(self, wanted: list[BlockRequest]) -> None:
        """The blocks of walks that can join."""
        with _told(wanted):
            begun, made, timing = self._step(wanted)
            for each, block, frames in zip(wanted, begun, made, strict=True):
                with _told([each]):  # a full disk is one player's trouble
                    each.made.set_result(each.walk.end(block, frames, timing))

    def _step(self, wanted: list[BlockRequest]) -> tuple[list[Begun], list[Frames], Timing]:
        """Every walk's frames, their parts handed out as they are made; sorts `wanted`."""
        step: Step = wanted[0].walk.step
        if len(wanted) > 1:
            batch = self._batch([each.walk.session for each in wanted])
            wanted.sort(key=lambda each: batch.sessions.index(each.walk.session))
            step = batch.step
        begun = [each.walk.begin(each.order()) for each in wanted]

        def hand_out(frames: HostCopy) -> None:
            for row, (each, block) in enumerate(zip(wanted, begun, strict=True)):
                each.hand_out(FrameChunk(block.number, block.first, block.order.id, frames, row))

        clock = StageTimer(partial(synchronize, wanted[0].walk.world.device))
        start, stop = time.perf_counter(), listen(clock)
        try:
            made = step([block.order.action for block in begun], hand_out)
        finally:
            stop()
        return begun, made, Timing(start, time.perf_counter() - start, clock.stages)

    def _batch(self, sessions: list[Session]) -> SessionBatch:
        """The batch of these sessions; others that hold any of them give way to it."""
        for batch in self._batches:
            if set(batch.sessions) == set(sessions):
                return batch
        joined = SessionBatch(sessions)
        self._part(sessions)
        self._batches.append(joined)
        return joined

    def _part(self, sessions: list[Session]) -> None:
        """End the batches that hold any of these; nobody keeps what belongs to another."""
        for batch in list(self._batches):
            if set(batch.sessions) & set(sessions):
                self._batches.remove(batch)
                batch.part(staying=sessions)

    def _close(self, walk: LiveSession) -> None:
        session = walk.session
        walk.close()  # gives memory back before the others in its batch take some
        self._part([session])


@contextmanager
def _told(wanted: Sequence[BlockRequest]) -> Iterator[None]:
    """What goes wrong is told to all who wait for it."""
    try:
        yield
    except BaseException as error:
        # Its frames hold sessions, which the garbage collector takes for small.
        traceback.clear_frames(error.__traceback__)
        for each in wanted:
            if not each.made.done():
                each.made.set_exception(error)


def _sorting(wanted: BlockRequest) -> tuple[int, ...]:
    """Equal for walks that can make their blocks together."""
    walk = wanted.walk
    alone = walk.captures or not supports_batching(walk.world)
    return (id(walk),) if alone else (0, *batch_key(walk.session))
