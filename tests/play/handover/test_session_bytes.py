"""A live session as bytes: exact, and refused where it does not fit."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glassworld.engine.actions.track import Action
from glassworld.errors import InputError
from glassworld.play.handover.session_bytes import pack_session, unpack_session, unpack_untrusted
from glassworld.play.handover.suspended import (
    SuspendedSession,
    pack_suspended,
    unpack_suspended,
)
from glassworld.play.images import StartImage
from glassworld.play.live_session import LiveSession, PlayerInput
from glassworld.play.pacing import QueuedFrame
from tests.support import tiny

INPUT = PlayerInput(4, Action((1, 0, 0, 0), (0, 0.1)))


def play_block(session: LiveSession) -> np.ndarray:
    session.prepare_block()
    (frames,) = session.step([INPUT.action], lambda *_: None)
    return session.finish_block(INPUT, frames, 1.0, 0.5, []).frames


@pytest.fixture(scope="module")
def live() -> LiveSession:
    world = tiny.world()
    image = tiny.picture().resize((world.spec.width, world.spec.height))
    session = LiveSession(world, StartImage("smooth", image), seed=3)
    play_block(session)
    play_block(session)
    return session


@pytest.fixture(scope="module")
def data(live: LiveSession) -> bytes:
    return pack_session(live, live.take_snapshot())


def test_session_goes_on_with_the_same_frames(live: LiveSession, data: bytes) -> None:
    again = unpack_untrusted(live.world, data)
    assert (again.next_block, again.frame_count, again.seed) == (2, 21, 3)
    assert again.held == live.held
    np.testing.assert_array_equal(again.last_frame, live.last_frame)
    np.testing.assert_array_equal(again.start_image.image, live.start_image.image)
    state = live.engine_session.save()
    np.testing.assert_array_equal(play_block(again), play_block(live))
    live.engine_session.restore(state)
    del live.held[2:]


def test_engine_reads_the_file_too(live: LiveSession, data: bytes, tmp_path: Path) -> None:
    (tmp_path / "walk.gws").write_bytes(data)
    assert live.world.resume(tmp_path / "walk.gws").state.block == 2


def changed(data: bytes, change: Any) -> bytes:
    """Return the file with its header changed."""
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def without_live_part(header: dict[str, Any]) -> None:
    del header["__metadata__"]["live"]


def with_more_blocks(header: dict[str, Any]) -> None:
    live = json.loads(header["__metadata__"]["live"])
    live["held"] *= 2
    header["__metadata__"]["live"] = json.dumps(live)


def of_version_2(header: dict[str, Any]) -> None:
    live = json.loads(header["__metadata__"]["live"])
    header["__metadata__"]["live"] = json.dumps(live | {"version": 2})


def with_other_shapes(header: dict[str, Any]) -> None:
    header["context.0.k"]["shape"].reverse()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (without_live_part, "not saved by live play"),
        (with_more_blocks, "differ in number"),
        (of_version_2, "of version 2"),
        (with_other_shapes, "not of this world, or damaged"),
    ],
)
def test_changed_file_is_refused(live: LiveSession, data: bytes, change: Any, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        unpack_untrusted(live.world, changed(data, change), "walk.gws")


@pytest.mark.parametrize("content", [b"", b"no session", b"\xff" * 64])
def test_other_bytes_are_no_session(live: LiveSession, content: bytes) -> None:
    with pytest.raises(InputError, match="not a saved session"):
        unpack_untrusted(live.world, content)


def test_damaged_tensors_and_other_worlds_are_refused(live: LiveSession, data: bytes) -> None:
    with pytest.raises(InputError, match="damaged"):
        unpack_untrusted(live.world, data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(InputError, match=r"walk\.gws: saved from another world"):
        unpack_session(tiny.world(frame_rate=24), data)


def test_suspended_session_keeps_its_frames_and_input(live: LiveSession) -> None:
    frames = [QueuedFrame(1, 20, b"frame")]
    suspended = SuspendedSession(live, INPUT, "upload", "jpeg", False, frames)
    again = unpack_suspended(live.world, pack_suspended(suspended, live.take_snapshot()))
    assert (again.input, again.image, again.encoding, again.playing, again.frames) == (
        INPUT,
        "upload",
        "jpeg",
        False,
        frames,
    )
    assert again.live.next_block == 2
