"""Runs that a session goes on with, and runs that stop and leave a session."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from glassworld.engine.actions.track import ActionTrack, benchmark_actions, join_tracks
from glassworld.engine.media.images import Frames
from glassworld.engine.rollout import BlockReport
from glassworld.engine.runtime.threads import using_threads
from glassworld.engine.session import Session
from glassworld.engine.world import World
from glassworld.errors import InputError
from tests.support import tiny


@pytest.fixture(scope="module")
def world() -> World:
    return tiny.world()


def frames_of(reports: list[BlockReport]) -> Frames:
    return np.concatenate([report.frames for report in reports])


class StopAfter:
    """Stops a run before block `count`, and keeps its session."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.session: Session | None = None

    def __call__(self, session: Session) -> bool:
        self.session = session
        self.count -= 1
        return self.count < 0


@pytest.mark.parametrize("overlapped", [pytest.param(False, marks=pytest.mark.slow), True])
def test_stopped_run_goes_on_as_if_it_had_not_stopped(
    world: World, tmp_path: Path, overlapped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glassworld.engine.overlap.overlaps", lambda _: overlapped)
    stop = StopAfter(2)
    with using_threads(2):
        whole = world.generate(tiny.picture(), 15, seed=3)
        first = list(world.stream(tiny.picture(), 15, seed=3, stop=stop))
    assert stop.session is not None
    assert stop.session.state.block == len(first)
    stop.session.save(tmp_path / "walk.gws")
    session = world.resume(tmp_path / "walk.gws")
    with using_threads(2):
        rest = list(session.stream(15 - 3 * len(first)))
    assert [report.index for report in rest] == list(range(5 - len(first)))
    assert np.abs(frames_of([*first, *rest]).astype(int) - whole.frames).max() <= 1
    tracks = [report.actions.keyboard for report in (*first, *rest)]
    assert np.array_equal(np.concatenate(tracks), whole.actions.keyboard)


def test_session_of_initial_latents_steps_its_first_block(world: World) -> None:
    initial = world.generate(tiny.picture(), 3, seed=1).latents
    forward = world.space.press("w")
    expected = world.generate(tiny.picture(), 6, 2, forward, initial)
    stop = StopAfter(0)
    assert not list(world.stream(tiny.picture(), 6, 2, forward, initial, stop=stop))
    assert stop.session is not None
    stepped = [stop.session.step(forward) for _ in range(2)]
    assert np.abs(np.concatenate(stepped).astype(int) - expected.frames).max() <= 1


def test_frames_after_initial_latents_have_their_own_rows(world: World) -> None:
    initial = world.generate(tiny.picture(), 3, seed=1).latents
    rows = np.zeros((33, 4), np.float32)
    rows[:, 0] = np.linspace(0, 1, 33)
    track, stop = ActionTrack(rows, np.zeros((33, 2), np.float32)), StopAfter(0)
    # The first new latent frame has rows 9 to 12, but decodes to one frame; the others have four.
    rollout = world.generate(tiny.picture(), 6, 2, track, initial)
    assert rollout.actions == track.rows(12, 33)
    assert not list(world.stream(tiny.picture(), 6, 2, track, initial, stop=stop))
    assert stop.session is not None
    reports = list(stop.session.stream(6))
    assert len(frames_of(reports)) == len(rollout.frames) == 21
    assert join_tracks(report.actions for report in reports) == track.rows(12, 33)


def test_stream_of_a_new_session_is_that_of_generate(world: World) -> None:
    whole = world.generate(tiny.picture(), 6, seed=3, noise="blocks")
    streamed = frames_of(list(world.start(tiny.picture(), 3).stream(6)))
    assert np.array_equal(streamed, whole.frames)


def test_given_actions_replace_those_that_are_left(world: World) -> None:
    rested = ActionTrack(np.zeros((12, 4), np.float32))
    stop = StopAfter(1)
    list(world.stream(tiny.picture(), 9, seed=3, stop=stop))
    session = stop.session
    assert session is not None
    twin = Session(world, session.save())
    report = next(session.stream(3, rested))
    assert not report.actions.keyboard.any()
    # A block that is decoded at once may be rounded otherwise than frame by frame.
    frames = twin.step(world.space.press(()))
    assert np.abs(report.frames.astype(int) - frames).max() <= 1


def test_stream_goes_past_the_end_of_a_run_with_random_actions(world: World) -> None:
    session = world.start(tiny.picture(), seed=3, num_latent_frames=3)
    reports = list(session.stream(9))
    expected = benchmark_actions(world.space, 33, 3)
    assert frames_of(reports).shape[0] == 33
    assert np.array_equal(
        np.concatenate([report.actions.keyboard for report in reports]), expected.keyboard
    )
    assert session.step(world.space.press(())).shape[0] == 12


def test_two_threads_cannot_stream_one_session(world: World) -> None:
    session = world.start(tiny.picture(), seed=3)
    reports = session.stream(6)
    with ThreadPoolExecutor(1) as pool, session.turn():
        for use in (lambda: next(reports), lambda: session.stream(3)):
            with pytest.raises(InputError, match="in another thread"):
                pool.submit(use).result()


def test_stream_refuses_at_once_and_changes_nothing(world: World) -> None:
    session = world.start(tiny.picture(), seed=3)
    for frames, actions in ((4, None), (3, "w*8"), (3, "x*9")):
        with pytest.raises(InputError):
            session.stream(frames, actions)
    assert repr(session) == repr(world.start(tiny.picture(), seed=3))
    assert len(session.state.actions.keyboard) == 0
