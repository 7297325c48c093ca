"""Sessions: snapshots, rewinding and recordings, without a server."""

from __future__ import annotations

import numpy as np
import pytest

from glassworld.engine.actions.track import Action
from glassworld.errors import InputError
from glassworld.play.images import StartImage
from glassworld.play.live_session import MAX_SNAPSHOTS, BlockResult, LiveSession, PlayerInput
from tests.support import tiny

INPUT = PlayerInput(4, Action((1, 0, 0, 0), (0, 0.1)))


@pytest.fixture
def session() -> LiveSession:
    world = tiny.world()
    image = tiny.picture().resize((world.spec.width, world.spec.height))
    return LiveSession(world, StartImage("smooth", image), seed=3)


def play_block(session: LiveSession) -> BlockResult:
    session.prepare_block()
    (frames,) = session.step([INPUT.action], lambda *_: None)
    return session.finish_block(INPUT, frames, 1.0, 0.5, [])


def test_finished_block_advances_the_session(session: LiveSession) -> None:
    blocks = [play_block(session) for _ in range(2)]
    assert [block.number for block in blocks] == [0, 1]
    assert [len(block.frames) for block in blocks] == [9, 12]
    assert (session.next_block, session.frame_count) == (2, 21)
    np.testing.assert_array_equal(session.last_frame, blocks[1].frames[-1])


def test_rewind_repeats_the_same_frames(session: LiveSession) -> None:
    blocks = [play_block(session) for _ in range(3)]
    session.rewind(1)
    assert (session.next_block, session.frame_count) == (1, 9)
    np.testing.assert_array_equal(session.last_frame, blocks[0].frames[-1])
    np.testing.assert_array_equal(play_block(session).frames, blocks[1].frames)


def test_rewind_reaches_as_far_as_the_snapshots(session: LiveSession) -> None:
    with pytest.raises(InputError, match="no earlier block"):
        session.rewind(0)
    for _ in range(MAX_SNAPSHOTS + 1):
        play_block(session)
    session.rewind(0)
    assert session.next_block == 1


def test_snapshots_over_the_memory_limit_are_dropped_except_the_newest(
    session: LiveSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glassworld.play.live_session.MAX_SNAPSHOT_BYTES", 1)
    for _ in range(3):
        play_block(session)
    session.rewind(0)
    assert session.next_block == 2


def test_recording_without_frames_or_started_twice_is_an_input_error(session: LiveSession) -> None:
    with pytest.raises(InputError, match="nothing"):
        session.stop_recording()
    session.record()
    with pytest.raises(InputError, match="already running"):
        session.record()
    play_block(session)
    recording = session.stop_recording().recording
    assert recording.frame_count == 9
    recording.close()
