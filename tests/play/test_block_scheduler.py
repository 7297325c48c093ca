"""Blocks made together are each player's own, whoever comes, goes back or leaves."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glassworld.engine.actions.track import Action
from glassworld.engine.rollout import Frames
from glassworld.engine.world import World
from glassworld.play.block_scheduler import BlockScheduler
from glassworld.play.images import StartingPicture
from glassworld.play.live_session import BlockResult, FrameChunk, LiveSession, PlayerInput
from glassworld.play.stage_timer import StageTimer
from glassworld.play.worker import DeviceThread
from glassworld.profiling.tags import listen
from tests.support import tiny

ORDERS = [
    PlayerInput(1, Action((1, 0, 0, 0), (0, 0.1))),
    PlayerInput(2, Action((0, 1, 0, 0), (0.1, 0))),
    PlayerInput(3, Action((0, 0, 1, 0), (0, 0))),
]


def walk(world: World, index: int) -> LiveSession:
    spec = world.spec
    picture = tiny.picture(40 + 8 * index, 70).resize((spec.width, spec.height))
    return LiveSession(world, StartingPicture("smooth", picture), seed=index)


def alone(world: World, index: int, blocks: int) -> list[Frames]:
    session = walk(world, index).session
    return [session.step(ORDERS[index].action) for _ in range(blocks)]


def assert_same(made: Frames, expected: Frames) -> None:
    assert np.abs(made.astype(int) - expected.astype(int)).max() <= 1


def sharing(walk: LiveSession) -> int:
    """How many walks' windows lie in the storage that holds this one's."""
    keys = walk.session.state.caches[0].self_attention.k
    return keys.untyped_storage().nbytes() // keys.nbytes


class Players:
    """Walks and the rounds they are made in; `make` has blocks made in one round."""

    def __init__(self, world: World, count: int) -> None:
        self.worker = DeviceThread()
        self.rounds = BlockScheduler(self.worker)
        self.walks = [walk(world, index) for index in range(count)]
        self.parts: list[list[FrameChunk]] = [[] for _ in range(count)]

    async def make(self, *indices: int) -> list[BlockResult]:
        """The next blocks of these walks, all asked for while the device is busy."""
        outcomes = await self.outcomes(*indices)
        for each in outcomes:
            if isinstance(each, BaseException):
                raise each
        return outcomes

    async def outcomes(self, *indices: int) -> list[Any]:
        """The same, or what went wrong instead."""
        busy = threading.Event()
        self.worker.later(lambda: busy.wait(20) and None)
        asked = [self.block(index) for index in indices]
        busy.set()
        return await asyncio.gather(*asked, return_exceptions=True)

    def block(self, index: int) -> asyncio.Future[BlockResult]:
        parts = self.parts[index]
        parts.clear()
        return self.rounds.make(self.walks[index], lambda: ORDERS[index], parts.append)


@asynccontextmanager
async def playing(world: World, count: int) -> AsyncIterator[Players]:
    players = Players(world, count)
    try:
        yield players
    finally:
        players.worker.close()


def test_blocks_asked_for_at_once_are_made_together() -> None:
    world = tiny.world()
    expected = [alone(world, index, 4) for index in range(3)]

    async def play() -> None:
        async with playing(world, 3) as players:
            for block in range(4):
                made = await players.make(2, 0, 1)
                assert made[0].timing is made[1].timing is made[2].timing
                for index, done in zip((2, 0, 1), made, strict=True):
                    assert_same(done.frames, expected[index][block])
                    assert (done.number, done.action) == (block, ORDERS[index].id)
                    parts = players.parts[index]
                    own = [part.frames.wait()[part.row].numpy() for part in parts]
                    assert np.array_equal(np.concatenate(own), done.frames)
                    assert {part.action for part in parts} == {ORDERS[index].id}

    asyncio.run(play())


def test_whoever_comes_goes_back_or_leaves_disturbs_nobody() -> None:
    world = tiny.world()
    expected = [alone(world, index, 9) for index in range(3)]
    made: list[int] = [0, 0, 0]

    async def play() -> None:
        async with playing(world, 3) as players:

            async def check(*indices: int) -> None:
                for index, done in zip(indices, await players.make(*indices), strict=True):
                    assert_same(done.frames, expected[index][made[index]])
                    made[index] += 1

            making = players.block(0)
            players.worker.later(lambda: players.walks[0].rewind(0))  # asked for afterwards
            assert_same((await making).frames, expected[0][0])
            for indices in ((0, 1), (0, 1), (0, 1), (2,), (2,), (2,), (0, 1, 2), (1, 2), (0,)):
                await check(*indices)
            snapshot = await players.worker.run(lambda: players.walks[1].rewind(3))
            assert snapshot.block == 3
            made[1] = 3
            await check(0, 1, 2)
            leaver = players.walks[0]
            assert sharing(players.walks[1]) == 3
            players.rounds.end(leaver)
            await check(1, 2)
            assert sharing(players.walks[1]) == 2
            assert not hasattr(leaver, "session")

    asyncio.run(play())


def test_walks_that_cannot_join_are_made_one_by_one(tmp_path: Path) -> None:
    world = tiny.world()

    async def play() -> None:
        async with playing(world, 3) as players:
            await players.make(0)
            made = await players.make(0, 1, 2)  # the first is a block ahead
            assert made[1].timing is made[2].timing
            assert made[0].timing is not made[1].timing
            players.walks[1].capture(tmp_path / "trace.json", 1)
            made = await players.make(1, 2)  # a capture shows one walk
            assert made[0].captured
            assert made[0].timing is not made[1].timing
            world.pipeline.dit.compiled = True  # for one session at once
            made = await players.make(1, 2)
            assert made[0].timing is not made[1].timing

    asyncio.run(play())
    assert (tmp_path / "trace.json").is_file()


def test_what_goes_wrong_is_told_to_all_of_the_round_and_to_no_other() -> None:
    world = tiny.world()

    async def play() -> None:
        async with playing(world, 3) as players:
            await players.make(2)
            good = players.walks[1].session.state
            players.walks[1].session.state = replace(good, noise=None)  # type: ignore[arg-type]
            outcomes = await players.outcomes(0, 1, 2)
            kinds = [type(each) for each in outcomes]
            assert kinds == [AttributeError, AttributeError, BlockResult]
            players.walks[1].session.state = good
            assert len(await players.make(0, 1, 2)) == 3

    asyncio.run(play())


def test_a_full_disk_is_the_trouble_of_whoever_records() -> None:
    world = tiny.world()

    async def play() -> None:
        async with playing(world, 2) as players:
            await players.make(0, 1)
            players.walks[0].record()
            film = players.walks[0].film
            assert film is not None
            film.close()  # as good as full
            failed, made = await players.outcomes(0, 1)
            assert isinstance(failed, ValueError)
            assert isinstance(made, BlockResult)
            names = [stage.name for stage in made.timing.stages]
            assert len(names) == len(set(names))  # of both sessions together
            assert "Condition" in names

    asyncio.run(play())


def test_what_a_failed_round_held_is_given_back_when_its_players_leave() -> None:
    world = tiny.world()

    async def play() -> None:
        async with playing(world, 2) as players:
            await players.make(0, 1)
            sessions = [weakref.ref(each.session) for each in players.walks]
            world.pipeline.decoder_dtype = "nonsense"  # type: ignore[assignment]
            assert {type(each) for each in await players.outcomes(0, 1)} == {RuntimeError}
            for each in players.walks:
                players.rounds.end(each)
            await players.worker.run(lambda: None)
            assert [session() for session in sessions] == [None, None]

    gc.collect()
    gc.disable()  # which would not see that a GPU is full
    try:
        asyncio.run(play())
    finally:
        gc.enable()


def test_a_worker_that_closes_leaves_nobody_waiting() -> None:
    world = tiny.world()

    async def play() -> None:
        async with playing(world, 1) as players:
            busy = threading.Event()
            players.worker.later(lambda: busy.wait(20) and None)
            making = players.block(0)
            threading.Timer(0.2, busy.set).start()
            players.worker.close()
            players.rounds.close()
            with pytest.raises(asyncio.CancelledError):
                await making

    asyncio.run(play())


def test_a_block_nobody_waits_for_any_more_is_not_begun() -> None:
    world = tiny.world()

    async def play() -> None:
        async with playing(world, 2) as players:
            busy = threading.Event()
            players.worker.later(lambda: busy.wait(20) and None)
            gone, stays = (players.block(index) for index in range(2))
            assert players.worker.waiting == 2
            gone.cancel()
            await asyncio.sleep(0)
            busy.set()
            await stays
            with pytest.raises(asyncio.CancelledError):
                await gone
            assert [each.session.state.block for each in players.walks] == [0, 1]
            assert players.worker.waiting == 0

    asyncio.run(play())


def test_stages_are_those_of_the_thread_that_times_them() -> None:
    """Waiting for the device for somebody else's tag fails while this one's work is captured."""
    waited: list[int] = []
    clock = StageTimer(lambda: waited.append(threading.get_ident()))
    stop = listen(clock)
    try:
        other = threading.Thread(target=tiny.world().generate, args=(tiny.picture(), 3))
        other.start()
        other.join()
        assert (waited, clock.stages) == ([], [])
        tiny.world().generate(tiny.picture(), 3)
    finally:
        stop()
    assert {*waited} == {threading.get_ident()}
    assert "Decode" in [stage.name for stage in clock.stages]
