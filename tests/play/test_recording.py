"""Recordings: limits, rewinds, and the action script."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest

from glassworld.engine.actions.track import Action
from glassworld.play.recording import HeldAction, Recording, action_script
from tests.support.disk import fill, small_disk
from tests.support.live import RATE, LiveServer


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


def test_disk_that_is_full_keeps_the_earlier_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_disk(tmp_path / "disk", 64) as disk:
        monkeypatch.setattr(tempfile, "tempdir", str(disk))
        recording = Recording(0)
        assert recording.write(frames(100))
        with pytest.raises(OSError, match="No space left"):
            recording.write(frames(20_000))
        assert recording.frame_count == 100
        monkeypatch.setattr(tempfile, "tempdir", None)
        recording.write_video(tmp_path / "walk.mp4", 12)
        assert (tmp_path / "walk.mp4").is_file()


@pytest.mark.parametrize("when", ["during", "end"])
def test_full_disk_ends_the_recording_with_a_notice_and_play_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    with small_disk(tmp_path / "disk", 400) as disk:
        monkeypatch.setattr(tempfile, "tempdir", str(disk))
        with LiveServer(frame_rate=RATE) as live, live.client() as client:
            client.start()
            client.send("record", on=True)
            assert client.wait_for("recording")["on"]
            list(client.frames(12))
            fill(disk)
            if when == "end":
                client.send("record", on=False)
            assert "the server's disk is full" in client.wait_for("notice")["text"]
            assert not client.wait_for("recording")["on"]
            assert len(list(client.frames(24))) == 24
            (disk / "filler").unlink()
            client.send("record", on=True)
            assert client.wait_for("recording")["on"]
            list(client.frames(24))
            client.send("record", on=False)
            finished = client.wait_for("recording")
            assert live.get(finished["video"]).body[4:8] == b"ftyp"
            names = [path.name for path in disk.glob("glassworld-*/*")]
            assert len(names) == 4  # the lock, and the three files of the last recording
