"""Recordings: limits, rewinds, and the action script."""

from __future__ import annotations

import json

import numpy as np
import pytest

from glassworld.engine.actions.track import Action
from glassworld.play.recording import HeldAction, Recording, action_script


def frames(count: int) -> np.ndarray:
    return np.zeros((count, 2, 3, 3), np.uint8)


def test_recording_that_is_full_writes_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glassworld.play.recording.MAX_RECORDING_BYTES", 5 * 18)
    recording = Recording(0)
    assert recording.write(frames(4))
    assert not recording.write(frames(2))
    assert recording.frame_count == 4
    recording.close()


@pytest.mark.parametrize(
    ("rewind_to", "first_frame", "frame_count"), [(13, 9, 4), (9, 9, 0), (5, 5, 0), (40, 9, 12)]
)
def test_truncate_removes_the_frames_from_there_on(
    rewind_to: int, first_frame: int, frame_count: int
) -> None:
    recording = Recording(9)
    recording.write(frames(12))
    recording.truncate(rewind_to)
    assert (recording.first_frame, recording.frame_count) == (first_frame, frame_count)
    recording.write(frames(3))
    assert recording.frame_count == frame_count + 3
    recording.close()


def test_action_script_has_one_row_for_each_frame() -> None:
    held = [HeldAction(Action((1, 0), (0.1, 0)), 2), HeldAction(Action((0, 1), (0, 0)), 1)]
    assert json.loads(action_script("gta_drive", 7, held, 1)) == {
        "mode": "gta_drive",
        "seed": 7,
        "noise": "blocks",
        "picture": "picture.png",
        "first_frame": 1,
        "keyboard": [[1, 0], [1, 0], [0, 1]],
        "mouse": [[0.1, 0], [0.1, 0], [0, 0]],
    }
    assert "mouse" not in json.loads(
        action_script("templerun", 7, [HeldAction(Action((1,)), 1)], 0)
    )
