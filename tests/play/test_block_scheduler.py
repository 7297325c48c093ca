"""Blocks generated in a batch are each player's own, whoever joins, rewinds or leaves."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from glassworld.engine.actions.track import Action
from glassworld.engine.media.images import Frames
from glassworld.engine.world import World
from glassworld.play.block_scheduler import BlockRequest, BlockScheduler, DeviceThread
from glassworld.play.images import StartImage
from glassworld.play.live_session import BlockResult, FrameChunk, LiveSession, PlayerInput
from glassworld.play.traces.block_capture import BlockCapture
from tests.support import tiny

INPUTS = [
    PlayerInput(1, Action((1, 0, 0, 0), (0, 0.1))),
    PlayerInput(2, Action((0, 1, 0, 0), (0.1, 0))),
    PlayerInput(3, Action((0, 0, 1, 0), (0, 0))),
]


def new_session(world: World, index: int) -> LiveSession:
    spec = world.spec
    image = tiny.picture(40 + 8 * index, 70).resize((spec.width, spec.height))
    return LiveSession(world, StartImage("smooth", image), seed=index)


def generate_alone(world: World, index: int, blocks: int) -> list[Frames]:
    session = new_session(world, index).engine_session
    return [session.step(INPUTS[index].action) for _ in range(blocks)]


def assert_same(frames: Frames, expected: Frames) -> None:
    assert np.abs(frames.astype(int) - expected.astype(int)).max() <= 1


def sessions_in_storage(session: LiveSession) -> int:
    """Return how many sessions' caches are in the storage that holds this one's."""
    keys = session.engine_session.state.caches[0].self_attention.k
    return keys.untyped_storage().nbytes() // keys.nbytes


async def chunks_of(request: BlockRequest) -> list[FrameChunk]:
    chunks = []
    while (chunk := await request.next_chunk()) is not None:
        chunks.append(chunk)
    return chunks


def wait_for(event: threading.Event) -> None:
    event.wait(20)


class Players:
    """Sessions and the scheduler of their blocks."""

    def __init__(self, world: World, count: int) -> None:
        self.device_thread = DeviceThread()
        self.scheduler = BlockScheduler(self.device_thread)
        self.sessions = [new_session(world, index) for index in range(count)]

    def request(self, index: int) -> BlockRequest:
        return self.scheduler.request(self.sessions[index], lambda: INPUTS[index])

    @contextmanager
    def busy_device(self) -> Iterator[None]:
        """Keep the device thread busy until the end of the `with`."""
        done = threading.Event()
        self.device_thread.submit(partial(wait_for, done))
        yield
        done.set()

    def request_together(self, *indices: int) -> list[BlockRequest]:
        """Request these players' next blocks while the device is busy."""
        with self.busy_device():
            return [self.request(index) for index in indices]

    async def outcomes(self, *indices: int) -> list[Any]:
        """Return the results or exceptions of requests made together."""
        requests = self.request_together(*indices)
        return await asyncio.gather(*(r.result for r in requests), return_exceptions=True)

    async def generate(self, *indices: int) -> list[BlockResult]:
        """Return the results of requests made together."""
        outcomes = await self.outcomes(*indices)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return outcomes


@asynccontextmanager
async def playing(world: World, count: int) -> AsyncIterator[Players]:
    players = Players(world, count)
    try:
        yield players
    finally:
        players.device_thread.close()


def world_of_equal_ages() -> World:
    """Return a world whose layers, like those by kernels, batch growing sessions of one age."""
    world = tiny.world()
    for layer in world.networks.dit.blocks:
        setattr(layer, "takes_batch_slots", False)  # noqa: B010 - mypy knows no such attribute
    return world


def in_one_batch(*results: BlockResult) -> bool:
    return len({result.started for result in results}) == 1


def test_requests_at_the_same_time_are_generated_in_one_batch() -> None:
    world = tiny.world()
    expected = [generate_alone(world, index, 4) for index in range(3)]

    async def play() -> None:
        async with playing(world, 3) as players:
            for block in range(4):
                requests = players.request_together(2, 0, 1)
                results = await asyncio.gather(*(request.result for request in requests))
                assert in_one_batch(*results)
                for index, request, result in zip((2, 0, 1), requests, results, strict=True):
                    assert_same(result.frames, expected[index][block])
                    assert (result.number, result.input_id) == (block, INPUTS[index].id)
                    chunks = await chunks_of(request)
                    frames = [chunk.frames.wait()[chunk.row].numpy() for chunk in chunks]
                    assert np.array_equal(np.concatenate(frames), result.frames)
                    assert {chunk.input_id for chunk in chunks} == {INPUTS[index].id}
                    assert {chunk.block for chunk in chunks} == {block}
                    first = 9 + 12 * (block - 1) if block else 0
                    assert {chunk.first_frame for chunk in chunks} == {first}

    asyncio.run(play())


@pytest.mark.slow
def test_players_who_join_rewind_or_leave_do_not_affect_the_others() -> None:
    world = tiny.world()
    expected = [generate_alone(world, index, 7) for index in range(3)]
    next_block = [0, 0, 0]

    async def play() -> None:
        async with playing(world, 3) as players:

            async def check(*indices: int) -> None:
                results = await players.generate(*indices)
                for index, result in zip(indices, results, strict=True):
                    assert_same(result.frames, expected[index][next_block[index]])
                    next_block[index] += 1

            request = players.request(0)
            players.device_thread.submit(lambda: players.sessions[0].rewind(0))  # runs after it
            assert_same((await request.result).frames, expected[0][0])
            for indices in ((0, 1), (0, 1), (0, 1), (2,), (2,), (2,), (0, 1, 2), (1, 2), (0,)):
                await check(*indices)
            await players.device_thread.run(lambda: players.sessions[1].rewind(3))
            assert players.sessions[1].next_block == 3
            next_block[1] = 3
            await check(0, 1, 2)
            leaver = players.sessions[0]
            assert sessions_in_storage(players.sessions[1]) == 3
            players.scheduler.close_session(leaver)
            await check(1, 2)
            assert sessions_in_storage(players.sessions[1]) == 2
            assert not hasattr(leaver, "engine_session")

    asyncio.run(play())


def test_a_new_player_joins_the_batch_of_older_ones() -> None:
    world = tiny.world()
    expected = [generate_alone(world, index, blocks) for index, blocks in enumerate((3, 2, 3))]

    async def play() -> None:
        async with playing(world, 3) as players:
            await players.generate(0, 2)
            for block in range(2):
                requests = players.request_together(0, 1, 2)
                results = await asyncio.gather(*(request.result for request in requests))
                assert in_one_batch(*results)
                for index, request, result in zip((0, 1, 2), requests, results, strict=True):
                    assert_same(result.frames, expected[index][block + (index != 1)])
                    chunks = await chunks_of(request)
                    frames = [chunk.frames.wait()[chunk.row].numpy() for chunk in chunks]
                    assert np.array_equal(np.concatenate(frames), result.frames)

    asyncio.run(play())


def test_sessions_that_cannot_form_a_batch_are_generated_one_by_one(tmp_path: Path) -> None:
    world = world_of_equal_ages()

    async def play() -> None:
        async with playing(world, 3) as players:
            await players.generate(0)
            results = await players.generate(0, 1, 2)  # the first is a block ahead
            assert in_one_batch(*results[1:])
            assert not in_one_batch(*results[:2])
            players.sessions[1].capture(BlockCapture(tmp_path / "trace.json", 1))
            results = await players.generate(1, 2)  # a capture shows one session
            assert results[0].capture is not None
            results[0].capture.export()
            assert not in_one_batch(*results)
            world.networks.dit.compiled = True  # for one session at a time
            assert not in_one_batch(*await players.generate(1, 2))

    asyncio.run(play())
    assert (tmp_path / "trace.json").is_file()


def test_a_failure_reaches_all_of_the_batch_and_nobody_else() -> None:
    world = world_of_equal_ages()

    async def play() -> None:
        async with playing(world, 3) as players:
            await players.generate(2)
            session = players.sessions[1].engine_session
            good = session.state
            session.state = replace(good, noise=None)  # type: ignore[arg-type]
            requests = players.request_together(0, 1, 2)
            outcomes = await asyncio.gather(*(r.result for r in requests), return_exceptions=True)
            kinds = [type(outcome) for outcome in outcomes]
            assert kinds == [AttributeError, AttributeError, BlockResult]
            assert [await chunks_of(request) for request in requests[:2]] == [[], []]
            session.state = good
            assert len(await players.generate(0, 1, 2)) == 3

    asyncio.run(play())


def test_a_full_disk_affects_only_the_player_who_records() -> None:
    world = tiny.world()

    async def play() -> None:
        async with playing(world, 2) as players:
            await players.generate(0, 1)
            players.sessions[0].record()
            recording = players.sessions[0].recording
            assert recording is not None
            recording.close()  # writing fails as on a full disk
            failure, result = await players.outcomes(0, 1)
            assert isinstance(failure, ValueError)
            assert isinstance(result, BlockResult)
            names = [stage.name for stage in result.stages]
            assert len(names) == len(set(names))  # both sessions together
            assert "Condition" in names

    asyncio.run(play())


def test_sessions_of_a_failed_batch_are_freed_when_their_players_leave(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = tiny.world()

    def fail(*_: object) -> Tensor:
        raise RuntimeError("no frame")

    async def play() -> None:
        async with playing(world, 2) as players:
            await players.generate(0, 1)
            sessions = [weakref.ref(session.engine_session) for session in players.sessions]
            monkeypatch.setattr(world.networks.decoder, "decode_frame", fail)
            outcomes = await players.outcomes(0, 1)
            assert {type(outcome) for outcome in outcomes} == {RuntimeError}
            for session in players.sessions:
                players.scheduler.close_session(session)
            await players.device_thread.run(lambda: None)
            assert [session() for session in sessions] == [None, None]

    gc.collect()
    gc.disable()  # the collector does not run when a GPU is full
    try:
        asyncio.run(play())
    finally:
        gc.enable()


def test_closing_cancels_waiting_requests() -> None:
    world = tiny.world()

    async def play() -> None:
        async with playing(world, 1) as players:
            busy = threading.Event()
            players.device_thread.submit(partial(wait_for, busy))
            request = players.request(0)
            threading.Timer(0.1, busy.set).start()
            players.scheduler.close()
            players.device_thread.close()
            with pytest.raises(asyncio.CancelledError):
                await request.result
            assert await request.next_chunk() is None

    asyncio.run(play())


def test_a_cancelled_request_is_not_generated() -> None:
    world = tiny.world()

    async def play() -> None:
        async with playing(world, 2) as players:
            with players.busy_device():
                cancelled, other = (players.request(index) for index in range(2))
                assert players.device_thread.waiting == 2
                cancelled.result.cancel()
                await asyncio.sleep(0)
            await other.result
            with pytest.raises(asyncio.CancelledError):
                await cancelled.result
            assert [session.next_block for session in players.sessions] == [0, 1]
            assert players.device_thread.waiting == 0

    asyncio.run(play())


def test_device_thread_computes_with_the_threads_of_the_program() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    device_thread = DeviceThread()
    try:
        assert asyncio.run(device_thread.run(torch.get_num_threads)) == 3
    finally:
        device_thread.close()
        torch.set_num_threads(before)
