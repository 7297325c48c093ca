"""Blocks whose actions are known: the same run, decoded at once and beside the next block."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from glassworld.engine.actions.track import Action
from glassworld.engine.batch import SessionBatch
from glassworld.engine.checkpoint.tiny_decoder import with_tiny_decoder
from glassworld.engine.overlap import count_multiplications, is_small, overlaps
from glassworld.engine.rollout import BlockReport, Rollout
from glassworld.engine.session import Session
from glassworld.engine.world import World
from glassworld.errors import InputError
from glassworld.models.ops.attention import attention
from glassworld.profiling.tags import listen
from glassworld.specs import ActionModuleSpec, DiTSpec, VAESpec, VisionSpec, WorldSpec
from tests.support import tiny

FORWARD = Action((1, 0, 0, 0), (0, 0))
LEFT = Action((0, 0, 0, 0), (0, -0.1))
WALK = [FORWARD, LEFT, FORWARD, FORWARD, LEFT]


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    assert torch.get_num_threads() == 2  # whatever the test did
    torch.set_num_threads(before)


@pytest.fixture
def world() -> World:
    """Of a transformer that has enough to do beside the decoder."""
    return tiny.world(dit={"ffn_dim": 2048})


@pytest.fixture
def decoders(world: World) -> list[int]:
    """Grows by the thread of each decoding."""
    threads: list[int] = []
    tiny.vae_decoder(world).decoder.register_forward_hook(
        lambda *_: threads.append(threading.get_ident())
    )
    return threads


def listened_to(world: World, frames: int) -> Rollout:
    """Generate a run while somebody listens to its tags."""
    stop = listen(lambda *_: None)
    try:
        return world.generate(tiny.picture(), frames, seed=4)
    finally:
        stop()


@pytest.mark.slow
def test_generate_decodes_all_blocks_but_the_first_beside_the_next(
    world: World, decoders: list[int]
) -> None:
    here = threading.get_ident()
    beside = world.generate(tiny.picture(), 15, seed=4)
    assert [thread == here for thread in decoders] == [True, False, False, False, False]
    decoders.clear()
    in_turn = listened_to(world, 15)
    assert decoders == [here] * 15
    torch.testing.assert_close(beside.latents, in_turn.latents, rtol=0, atol=1e-4)
    difference = np.abs(beside.frames.astype(int) - in_turn.frames)
    assert difference.max() <= 1
    assert len(beside.timings.blocks) == 5


def test_run_with_noise_by_blocks_rounds_as_a_session(world: World, decoders: list[int]) -> None:
    world.generate(tiny.picture(), 6, seed=4, noise="blocks")
    assert decoders == [threading.get_ident()] * 6


@pytest.mark.slow
def test_run_of_known_actions_equals_single_steps(world: World) -> None:
    stepping, running = (world.start(tiny.picture(), seed=2) for _ in range(2))
    ran = list(running.run(WALK))
    stepped = [stepping.step(action) for action in WALK]
    assert [len(frames) for frames in ran] == [9, 12, 12, 12, 12]
    for made, expected in zip(ran, stepped, strict=True):
        assert np.abs(made.astype(int) - expected).max() <= 1
    on = (session.step(LEFT).astype(int) for session in (running, stepping))
    assert np.abs(next(on) - next(on)).max() <= 1


@pytest.mark.parametrize("save", ["copy", "file"])
def test_session_saved_during_a_run_goes_on_after_the_blocks_that_are_begun(
    world: World, tmp_path: Path, save: str
) -> None:
    stepping, running = (world.start(tiny.picture(), seed=2) for _ in range(2))
    expected = [stepping.step(action) for action in WALK]
    slow_down_decoding(world)
    frames = running.run(WALK)
    for _ in range(3):
        next(frames)
    if save == "file":
        running.save(tmp_path / "run.gws")
        saved = world.resume(tmp_path / "run.gws")
    else:
        saved = Session(world, running.save())
    del frames  # which ends the run
    for block in range(saved.state.block, len(WALK)):
        made = saved.step(WALK[block])
        assert np.abs(made.astype(int) - expected[block]).max() <= 1


def slow_down_decoding(world: World) -> None:
    """Have the decoder take so long that a run yields a block while it decodes the next."""
    tiny.vae_decoder(world).decoder.register_forward_hook(lambda *_: time.sleep(0.05))


def test_session_that_runs_joins_a_batch_once_its_block_is_decoded(world: World) -> None:
    expected = [world.start(tiny.picture(), seed=2) for _ in range(2)]
    sessions = [world.start(tiny.picture(), seed=2) for _ in range(2)]
    slow_down_decoding(world)
    frames = sessions[0].run(WALK)
    for _ in range(3):
        next(frames)
    made = SessionBatch(sessions).step([LEFT, LEFT])
    del frames  # which ends the run
    for action in WALK[: sessions[0].state.block - 1]:
        expected[0].step(action)
    for session, block in zip(expected, made, strict=True):
        assert np.abs(block.astype(int) - session.step(LEFT)).max() <= 1


@pytest.mark.parametrize("way", ["run", "stream"])
def test_run_of_a_restored_session_is_refused(world: World, way: str) -> None:
    session = world.start(tiny.picture())
    saved = session.save()
    frames = session.run(WALK) if way == "run" else session.stream(15)
    next(iter(frames))
    session.restore(saved)
    with pytest.raises(InputError, match="restored during a run"):
        next(iter(frames))
    assert [len(frames) for frames in session.run(WALK)] == [9, 12, 12, 12, 12]


def test_run_without_actions_yields_nothing(world: World) -> None:
    session = world.start(tiny.picture())
    assert list(session.run([])) == []
    assert session.state.start == 0


def test_stopped_run_holds_the_reported_blocks(world: World) -> None:
    reports: list[BlockReport] = []

    def on_block(report: BlockReport) -> bool:
        reports.append(report)
        return len(reports) < 3

    rollout = world.generate(tiny.picture(), 30, seed=4, on_block=on_block)
    assert [report.index for report in reports] == [0, 1, 2]
    assert np.array_equal(rollout.frames, np.concatenate([report.frames for report in reports]))
    assert rollout.latents.shape[2] == 9
    assert len(rollout.actions) == len(rollout.frames) == 33
    whole = world.generate(tiny.picture(), 9, seed=4)
    assert np.array_equal(rollout.actions.keyboard, whole.actions.keyboard)


def test_run_raises_for_an_action_after_the_frames_before_it(world: World) -> None:
    made = world.start(tiny.picture()).run([FORWARD, FORWARD, Action((1, 1), (0, 0)), LEFT])
    assert [len(next(made)) for _ in range(2)] == [9, 12]
    with pytest.raises(InputError, match="keyboard"):
        next(made)


def test_run_leaves_the_caller_its_threads(world: World) -> None:
    for _ in world.start(tiny.picture()).run(WALK):
        assert torch.get_num_threads() == 2


def test_worlds_that_do_not_gain_do_not_overlap(world: World) -> None:
    assert overlaps(world.pipeline)
    torch.set_num_threads(1)
    assert is_small(world.pipeline)
    assert not overlaps(world.pipeline)
    torch.set_num_threads(2)
    assert not is_small(tiny.world(dit={"ffn_dim": 2048}, height=1024, width=2048).pipeline)
    assert is_small(tiny.world().pipeline)
    assert not overlaps(tiny.world().pipeline)  # little to do beside the decoder


@pytest.mark.slow
@pytest.mark.parametrize("tiny_decoder", [False, True])
def test_block_decoded_in_one_call_equals_frame_after_frame(tiny_decoder: bool) -> None:
    world = tiny.world()
    if tiny_decoder:
        world = with_tiny_decoder(world, None)
    at_once = world.generate(tiny.picture(), 9, seed=4)
    one_by_one = listened_to(world, 9)
    assert torch.equal(at_once.latents, one_by_one.latents)
    assert at_once.frames.shape == (33, 32, 48, 3)
    assert np.abs(at_once.frames.astype(int) - one_by_one.frames).max() <= 1


def test_count_multiplications_of_the_released_size() -> None:
    """29.7 TFLOP of linear layers and 22.9 of decoding, some of it elsewhere."""
    dit = DiTSpec(ActionModuleSpec(tuple(range(15)), 4))
    spec = WorldSpec(mode="universal", dit=dit, vae=VAESpec(), vision=VisionSpec())
    transformer, decoder = count_multiplications(spec)
    assert 2 * transformer == pytest.approx(29.7e12, rel=0.2)
    assert 2 * decoder == pytest.approx(22.9e12, rel=0.3)


@pytest.mark.parametrize(("queries", "keys"), [(3, 3), (3, 9), (3, 15)])
def test_short_attention_does_not_depend_on_the_number_of_threads(queries: int, keys: int) -> None:
    q, k, v = (torch.randn(24, 2, n, 64) for n in (queries, keys, keys))
    two = attention(q, k, v)
    torch.set_num_threads(1)
    one = attention(q, k, v)
    torch.set_num_threads(2)
    assert torch.equal(one, two)
    expected = torch.nn.functional.scaled_dot_product_attention(q.double(), k.double(), v.double())
    torch.testing.assert_close(one.double(), expected, rtol=0, atol=1e-5)
