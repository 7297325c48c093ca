"""Sessions: independent, rewound, streamed, endless."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from glassworld.engine.actions.track import Action
from glassworld.engine.state import recent_rows
from glassworld.engine.world import World
from glassworld.errors import InputError
from glassworld.profiling import registry as tags
from glassworld.profiling.tags import listen
from tests.support import tiny

FORWARD = Action((1, 0, 0, 0), (0, 0))


LEFT = Action((0, 0, 0, 0), (0, -0.1))


@pytest.fixture(scope="module")
def world() -> World:
    return tiny.world()


def test_session_steps_equal_a_run_that_replays_them(world: World) -> None:
    session = world.start(tiny.picture(), seed=9)
    actions = [FORWARD, LEFT, FORWARD]
    frames, rows = [], []
    for action in actions:
        rows.append(world.space.fill(action, session.next_frames))
        frames.append(session.step(action))
    assert [len(each) for each in frames] == [9, 12, 12]
    track = type(rows[0])(
        np.concatenate([row.keyboard for row in rows]), np.concatenate([row.mouse for row in rows])
    )
    replayed = world.generate(tiny.picture(), 9, seed=9, actions=track, noise="blocks")
    assert np.array_equal(np.concatenate(frames), replayed.frames)


def test_step_hands_out_frames_while_the_block_is_generated(world: World) -> None:
    session = world.start(tiny.picture(), seed=3)
    events: list[str | np.ndarray] = []
    stop = listen(lambda pattern, fields, start, end: events.append(pattern))
    try:
        for sizes in ([1, 4, 4], [4, 4, 4]):
            events.clear()
            whole = session.step(FORWARD, lambda part: events.append(part.wait()[0].numpy()))
            parts = [each for each in events if not isinstance(each, str)]
            assert [len(part) for part in parts] == sizes
            assert np.array_equal(np.concatenate(parts), whole)
            kinds = [each if isinstance(each, str) else "part" for each in events]
            first, second = [at for at, kind in enumerate(kinds) if kind == "part"][:2]
            assert tags.DECODE_FRAME in kinds[first:second]  # the next is decoded afterwards
            assert kinds.index(tags.UPDATE_CACHE) > second
    finally:
        stop()


def test_sessions_are_independent(world: World) -> None:
    alone = world.start(tiny.picture(), seed=1)
    expected = [alone.step(FORWARD) for _ in range(3)]
    first, second = world.start(tiny.picture(), seed=1), world.start(tiny.picture(64, 64), seed=2)
    for frames in expected:
        assert np.array_equal(first.step(FORWARD), frames)
        second.step(LEFT)


def test_restore_gives_the_same_future(world: World) -> None:
    session = world.start(tiny.picture(), seed=4)
    session.step(FORWARD)
    saved = session.save()
    once = [session.step(LEFT) for _ in range(3)]
    for _ in range(2):
        session.restore(saved)
        assert all(np.array_equal(session.step(LEFT), frames) for frames in once)


def test_step_under_other_actions_gives_other_frames(world: World) -> None:
    first, second = (world.start(tiny.picture(), seed=1).step(action) for action in (FORWARD, LEFT))
    assert not np.array_equal(first, second)


@pytest.mark.slow
@pytest.mark.parametrize("blocks", [30, pytest.param(353, marks=pytest.mark.slow)])
def test_long_session_takes_no_more_memory(world: World, blocks: int) -> None:
    session = world.start(tiny.picture())
    for _ in range(14):
        session.step(FORWARD)
    held = session.state.nbytes
    for _ in range(blocks):
        session.step(FORWARD)
    assert session.state.start == 3 * (14 + blocks)
    assert session.state.nbytes == held
    assert len(session.state.actions.keyboard) <= 12 + recent_rows(world.spec)


def test_run_takes_a_single_action_and_refuses_what_is_none(world: World) -> None:
    expected = world.start(tiny.picture(), seed=1).step(FORWARD)
    (frames,) = world.start(tiny.picture(), seed=1).run(FORWARD)
    assert np.abs(frames.astype(int) - expected).max() <= 1
    number: Any = 3
    with pytest.raises(InputError, match=r"^actions: give one Action per block, not int"):
        world.start(tiny.picture()).run(number)
    words: Any = ["w"]
    with pytest.raises(InputError, match="not an Action"):
        next(world.start(tiny.picture()).run(words))


@pytest.mark.parametrize("of", ["world", "session", "state"])
def test_pickle_is_one_clear_error(world: World, of: str) -> None:
    session = world.start(tiny.picture())
    session.step(FORWARD)
    value = {"world": world, "session": session, "state": session.state}[of]
    with pytest.raises(InputError, match="cannot be pickled"):
        pickle.dumps(value)
    assert copy.deepcopy(world) is copy.copy(world) is world


def test_repr_is_short_and_tells_how_far_it_is(world: World) -> None:
    session = world.start(tiny.picture())
    session.step(FORWARD)
    assert repr(session) == "Session('tiny', 1 blocks, 3 latent frames)"
    assert repr(session.state).startswith("SessionState(1 blocks, 3 latent frames, ")
    assert repr(world.generate(tiny.picture(), 6)) == "Rollout(21 frames of 32x48, 2 blocks)"
    assert repr(world) == "World('tiny', 32x48, cpu)"


def test_two_threads_cannot_step_one_session(world: World) -> None:
    session = world.start(tiny.picture())
    saved = session.save()
    refused: list[str] = []

    def meddle(_: object) -> None:
        for step in (
            lambda: session.step(FORWARD),
            lambda: next(session.run(FORWARD)),
            session.save,
            lambda: session.restore(saved),
        ):
            try:
                pool.submit(step).result()
            except InputError as error:
                refused.append(str(error))

    with ThreadPoolExecutor(1) as pool:
        frames = session.step(FORWARD, meddle)
        assert len(frames) == 9
        assert len(refused) == 12  # of all four for each of the three latent frames
        assert all("in another thread" in reason for reason in refused)
        assert len(pool.submit(session.step, FORWARD).result()) == 12  # one after another


def test_seed_means_the_same_in_start_and_generate(world: World) -> None:
    track = "w*21"
    whole = world.generate(tiny.picture(), 6, seed=42, actions=track)
    blocks = world.generate(tiny.picture(), 6, seed=42, actions=track, noise="blocks")
    for run, length in ((whole, 6), (blocks, None)):
        session = world.start(tiny.picture(), seed=42, num_latent_frames=length)
        frames = np.concatenate([session.step(FORWARD) for _ in range(2)])
        assert np.abs(frames.astype(int) - run.frames).max() <= 1
