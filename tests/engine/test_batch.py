"""Sessions that make their blocks together make what each would make alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from glassworld.engine.acceleration.parts import use_kernels
from glassworld.engine.actions.track import Action
from glassworld.engine.batch import SessionBatch, can_join, mixes_ages
from glassworld.engine.media.images import Frames
from glassworld.engine.pipeline import ExecutionPlan
from glassworld.engine.runtime.transfer import HostCopy
from glassworld.engine.session import Session
from glassworld.engine.world import World
from glassworld.errors import InputError
from tests.support import tiny

WALKS = [Action((1, 0, 0, 0), (0, 0.1)), Action((0, 1, 0, 0), (0.1, 0)), Action((0,) * 4, (0, 0))]


def walk(world: World, index: int) -> Session:
    return world.start(tiny.picture(40 + 8 * index, 70), seed=index)


def alone(world: World, index: int, blocks: int) -> list[Frames]:
    session = walk(world, index)
    return [session.step(WALKS[index]) for _ in range(blocks)]


def assert_same(made: Frames, expected: Frames) -> None:
    assert np.abs(made.astype(int) - expected.astype(int)).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, marks=pytest.mark.slow),
        pytest.param({"dit": {"window": 4}}, marks=pytest.mark.slow),
        {"dit": {"window": 7, "sink": 2}},
    ],
)
def test_batch_from_the_first_block_equals_single_sessions(changes: dict[str, object]) -> None:
    world = tiny.world(**changes)
    expected = [alone(world, index, 5) for index in range(3)]
    sessions = [walk(world, index) for index in range(3)]
    batch = SessionBatch(sessions)
    for block in range(5):
        for index, frames in enumerate(batch.step(WALKS)):
            assert_same(frames, expected[index][block])
    for index, session in enumerate(sessions):  # and on alone, from the rows of the batch
        assert_same(session.step(WALKS[index]), alone(world, index, 6)[5])


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, marks=pytest.mark.slow),
        pytest.param({"dit": {"window": 9}}, marks=pytest.mark.slow),
        pytest.param({"dit": {"window": 4}}, marks=pytest.mark.slow),
        {"dit": {"window": 8, "sink": 1}},
    ],
)
def test_batch_of_sessions_of_different_age_equals_single_sessions(
    changes: dict[str, object],
) -> None:
    world = tiny.world(**changes)
    expected = [alone(world, index, 9) for index in range(2)]
    early, late = sessions = [walk(world, index) for index in range(2)]
    for _ in range(5):
        early.step(WALKS[0])
    for _ in range(3):
        late.step(WALKS[1])
    batch = SessionBatch(sessions)
    for block in range(2):
        made = batch.step(WALKS[:2])
        assert_same(made[0], expected[0][5 + block])
        assert_same(made[1], expected[1][3 + block])
    assert_same(late.step(WALKS[1]), expected[1][5])  # alone in between
    made = batch.step(WALKS[:2])
    assert_same(made[0], expected[0][7])
    assert_same(made[1], expected[1][6])
    saved = late.save()
    batch.step(WALKS[:2])
    late.restore(saved)
    assert_same(batch.step(WALKS[:2])[1], expected[1][7])


@pytest.mark.slow
def test_batches_that_share_sessions_take_them_over() -> None:
    world = tiny.world()
    expected = [alone(world, index, 5) for index in range(3)]
    first, second, third = sessions = [walk(world, index) for index in range(3)]
    three = SessionBatch(sessions)
    three.step(WALKS)
    pair = SessionBatch([second, third])  # what `three` holds of them is out of date now
    pair.step(WALKS[1:])
    first.step(WALKS[0])
    for index, frames in enumerate(three.step(WALKS)):
        assert_same(frames, expected[index][2])
    three.part(staying=[first])
    for index, frames in enumerate(pair.step(WALKS[1:]), 1):
        assert_same(frames, expected[index][3])
    assert_same(first.step(WALKS[0]), expected[0][3])
    for index, frames in enumerate(three.step(WALKS)):
        assert_same(frames, expected[index][4])


@pytest.mark.parametrize("before", [0, 1])
def test_sessions_rejoin_after_single_first_blocks(before: int) -> None:
    world = tiny.world(frames_per_block=1)
    expected = [alone(world, index, 4) for index in range(2)]
    sessions = [walk(world, index) for index in range(2)]
    batch = SessionBatch(sessions)
    for _ in range(before):
        batch.step(WALKS[:2])
    for index, session in enumerate(sessions):
        session.step(WALKS[index])
    for block in range(before + 1, 4):
        for index, frames in enumerate(batch.step(WALKS[:2])):
            assert_same(frames, expected[index][block])


def test_refused_step_changes_nothing() -> None:
    world = tiny.world()
    expected = [alone(world, index, 4) for index in range(2)]
    batch = SessionBatch([walk(world, index) for index in range(2)])
    with pytest.raises(InputError, match="1 actions for 2 sessions"):
        batch.step(WALKS[:1])
    with pytest.raises(InputError, match="keyboard numbers"):
        batch.step([WALKS[0], Action((1,), (0, 0))])
    for block in range(4):
        for index, frames in enumerate(batch.step(WALKS[:2])):
            assert_same(frames, expected[index][block])


def test_session_at_its_end_leaves_the_others_of_a_batch_as_they_are() -> None:
    world = tiny.world()
    expected = alone(world, 0, 2)
    session, ended = walk(world, 0), world.start(tiny.picture(), num_latent_frames=3)
    batch = SessionBatch([session, ended])
    assert_same(batch.step(WALKS[:2])[0], expected[0])
    with pytest.raises(InputError, match="started for 3 latent frames"):
        batch.step(WALKS[:2])
    assert_same(session.step(WALKS[0]), expected[1])


def test_part_frees_the_storage_of_the_others() -> None:
    world = tiny.world()
    first, second = sessions = [walk(world, index) for index in range(2)]
    batch = SessionBatch(sessions)
    batch.step(WALKS[:2])
    batch.part(staying=[second])
    state = first.state
    held = [state.caches[0].self_attention.k, state.context[0].k]
    for tensor in [*held, *state.decoder.frames.values()]:
        assert tensor.untyped_storage().nbytes() <= tensor.nbytes + 64


MIXED = [
    ({}, (0, 2)),  # the first block of one
    # growing, growing, full; in time all are
    pytest.param({"dit": {"window": 9}}, (2, 1, 5), marks=pytest.mark.slow),
    pytest.param({"dit": {"window": 7, "sink": 2}}, (4, 0, 1, 4), marks=pytest.mark.slow),
    ({"frames_per_block": 1}, (0, 1, 3)),  # a decoder whose layers begin to remember
]


@pytest.mark.parametrize(("changes", "ages"), MIXED)
def test_sessions_of_any_ages_equal_single_sessions(
    changes: dict[str, object], ages: tuple[int, ...]
) -> None:
    world, blocks = tiny.world(**changes), 4
    actions = [WALKS[index % len(WALKS)] for index in range(len(ages))]
    sessions, expected = [], []
    for index, age in enumerate(ages):
        single = world.start(tiny.picture(40 + 8 * index, 70), seed=index)
        for _ in range(age):
            single.step(actions[index])
        sessions.append(Session(world, single.save()))
        expected.append([single.step(actions[index]) for _ in range(blocks)])
    batch = SessionBatch(sessions)
    for block in range(blocks):
        for index, frames in enumerate(batch.step(actions)):
            assert_same(frames, expected[index][block])


def test_on_frames_names_the_sessions_whose_frames_it_gets() -> None:
    world = tiny.world()
    old, young = walk(world, 0), walk(world, 1)
    old.step(WALKS[0])
    chunks: dict[int, list[Frames]] = {0: [], 1: []}

    def on_frames(frames: HostCopy, sessions: range) -> None:
        for index, own in zip(sessions, frames.wait().numpy(), strict=True):
            chunks[index].append(own)

    batch = SessionBatch([old, young])
    for lengths in ([[4, 4, 4], [1, 4, 4]], [[4, 4, 4], [4, 4, 4]]):
        for index, frames in enumerate(batch.step(WALKS[:2], on_frames)):
            assert [len(chunk) for chunk in chunks[index]] == lengths[index]
            assert np.array_equal(np.concatenate(chunks[index]), frames)
            chunks[index].clear()


def test_batch_refuses_sessions_that_do_not_fit() -> None:
    world = replace(tiny.world(), plan=ExecutionPlan(cuda_graphs=True))
    young, old = walk(world, 0), walk(world, 1)
    old.step(WALKS[1])
    assert not can_join([young, old])
    with pytest.raises(InputError, match=r"cannot generate a block together: .* graphs"):
        SessionBatch([young, old])
    assert not can_join([young, walk(tiny.world(), 0)])
    batch = SessionBatch([young, walk(world, 2)])
    young.step(WALKS[0])
    with pytest.raises(InputError, match="at the same block"):
        batch.step(WALKS[:2])


def test_layers_by_kernels_do_not_mix_ages() -> None:
    pytest.importorskip("triton")
    world = tiny.world()
    assert mixes_ages(world)
    use_kernels(world.networks)
    assert not mixes_ages(world)


def test_batch_refuses_a_session_twice() -> None:
    world = tiny.world()
    first, second = walk(world, 0), walk(world, 1)
    with pytest.raises(InputError, match="give each of them once"):
        SessionBatch([first, second, first])
    assert_same(first.step(WALKS[0]), alone(world, 0, 1)[0])  # it was left as it was
