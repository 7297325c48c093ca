"""Rounds: the blocks that players wait for, made together where their walks can.

One forward for several sessions uses a device better than one after another. A session's part of
it is what it would make alone, up to the rounding of larger products.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from itertools import groupby
from typing import NamedTuple

import torch

from glassworld.engine.actions import Action
from glassworld.engine.batch import SessionBatch, meeting_point, takes_batches
from glassworld.engine.pipeline import OnFrames
from glassworld.engine.runtime import OnTheWay
from glassworld.engine.world import Frames, Session
from glassworld.play.stages import StageClock
from glassworld.play.walk import Begun, MadeBlock, Order, Part, Timing, Walk
from glassworld.play.worker import Worker
from glassworld.profiling.tags import listen

Step = Callable[[Sequence[Action], OnFrames], list[Frames]]


class Wanted(NamedTuple):
    """A block that a player waits for."""

    walk: Walk
    order: Callable[[], Order]  # the newest, asked for when the block is begun
    hand_out: Callable[[Part], None]
    made: Future[MadeBlock]


class Rounds:
    """Asked from the event loop, made on the worker's thread."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._wanted: deque[Wanted] = deque()
        self._batches: list[SessionBatch] = []

    async def make(
        self, walk: Walk, order: Callable[[], Order], hand_out: Callable[[Part], None]
    ) -> MadeBlock:
        """The walk's next block; `hand_out` is given its parts as they are made."""
        made: Future[MadeBlock] = Future()
        self._wanted.append(Wanted(walk, order, hand_out, made))
        self._worker.later(self._run)  # unless an earlier round takes it along
        self._worker.waiting += 1
        try:
            return await asyncio.wrap_future(made)
        finally:
            self._worker.waiting -= 1

    def end(self, walk: Walk) -> None:
        """Close a walk, once what was asked for before is done."""
        self._worker.later(lambda: self._close(walk))

    # On the worker's thread

    def _run(self) -> None:
        wanted = []
        while self._wanted:
            each = self._wanted.popleft()
            if each.made.set_running_or_notify_cancel():
                wanted.append(each)
        with _told(wanted):
            for _, group in groupby(sorted(wanted, key=_sorting), _sorting):
                self._make(list(group))

    def _make(self, wanted: list[Wanted]) -> None:
        """The blocks of walks that can join."""
        with _told(wanted):
            step: Step = wanted[0].walk.step
            if len(wanted) > 1:
                batch = self._batch([each.walk.session for each in wanted])
                wanted.sort(key=lambda each: batch.sessions.index(each.walk.session))
                step = batch.step
            begun = [each.walk.begin(each.order()) for each in wanted]
            made, timing = _step(wanted, begun, step)
            for each, block, frames in zip(wanted, begun, made, strict=True):
                with _told([each]):  # a full disk is one player's trouble
                    each.made.set_result(each.walk.end(block, frames, timing))

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
                batch.part(staying=sessions)
                self._batches.remove(batch)

    def _close(self, walk: Walk) -> None:
        self._part([walk.session])
        walk.close()


@contextmanager
def _told(wanted: Sequence[Wanted]) -> Iterator[None]:
    """What goes wrong is told to all who wait for it."""
    try:
        yield
    except BaseException as error:
        for each in wanted:
            if not each.made.done():
                each.made.set_exception(error)


def _sorting(wanted: Wanted) -> tuple[int, ...]:
    """Equal for walks that can make their blocks together."""
    walk = wanted.walk
    alone = walk.captures or not takes_batches(walk.world)
    return (id(walk),) if alone else (0, *meeting_point(walk.session))


def _step(wanted: list[Wanted], begun: list[Begun], step: Step) -> tuple[list[Frames], Timing]:
    """Every walk's frames, their parts handed out as they are made."""

    def hand_out(frames: OnTheWay) -> None:
        for row, (each, block) in enumerate(zip(wanted, begun, strict=True)):
            each.hand_out(Part(block.number, block.first, block.order.id, frames, row))

    cuda = wanted[0].walk.world.device.type == "cuda"
    clock = StageClock(torch.cuda.synchronize if cuda else _nothing)
    start, stop = time.perf_counter(), listen(clock)
    try:
        made = step([block.order.action for block in begun], hand_out)
    finally:
        stop()
    return made, Timing(start, time.perf_counter() - start, clock.stages)


def _nothing() -> None:
    """What waiting for the CPU takes."""
