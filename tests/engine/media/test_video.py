"""Writing videos and drawing keys onto them."""

from __future__ import annotations

import sys
from pathlib import Path

import av
import numpy as np
import pytest

from glassworld.engine.media.overlay import ACCENT
from glassworld.engine.media.video import VideoWriter, write_video


def _gradient(count: int, height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    planes = np.stack([x * 255 // width, y * 255 // height, (x + y) % 64 + 96], axis=-1)
    return np.stack([np.roll(planes, shift, axis=1) for shift in range(count)]).astype(np.uint8)


def read_video(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_written_video_reads_back_alike(tmp_path: Path) -> None:
    frames = _gradient(20, 64, 96)
    write_video(tmp_path / "demo.mp4", frames, 12)
    back = read_video(tmp_path / "demo.mp4")
    assert back.shape == frames.shape
    assert np.abs(back.astype(int) - frames).mean() < 6
    with av.open(str(tmp_path / "demo.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.average_rate) == ("h264", 12)
    assert [path.name for path in tmp_path.iterdir()] == ["demo.mp4"]


def test_blocks_written_in_turn_are_one_video(tmp_path: Path) -> None:
    frames = _gradient(21, 32, 32)
    with VideoWriter(tmp_path / "demo.mp4", 12) as video:
        video.write(frames[:9])
        video.write(frames[9:])
    write_video(tmp_path / "whole.mp4", frames, 12)
    joined, whole = read_video(tmp_path / "demo.mp4"), read_video(tmp_path / "whole.mp4")
    assert joined.shape == whole.shape
    # Color conversion rounds by where in memory a frame lies, so not every bit is the same.
    assert np.abs(joined.astype(int) - whole).mean() < 1


@pytest.mark.parametrize(("height", "width"), [(33, 47), (32, 47), (33, 48), (2, 2)])
def test_odd_sizes_grow_by_a_pixel(tmp_path: Path, height: int, width: int) -> None:
    write_video(tmp_path / "odd.mp4", _gradient(3, height, width), 12)
    assert read_video(tmp_path / "odd.mp4").shape == (
        3,
        height + height % 2,
        width + width % 2,
        3,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="no colons in the names of its folders")
def test_relative_folder_may_have_a_colon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("2026-11-30T12:30:05")
    folder.mkdir()
    write_video(folder / "demo.mp4", _gradient(3, 32, 32), 12)
    assert [path.name for path in folder.iterdir()] == ["demo.mp4"]


def test_failed_video_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "demo.mp4"
    path.write_bytes(b"the last good one")

    def fail_half_way() -> None:
        with VideoWriter(path, 12) as video:
            video.write(_gradient(4, 32, 32))
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        fail_half_way()
    assert path.read_bytes() == b"the last good one"
    assert list(tmp_path.iterdir()) == [path]


def test_video_without_frames_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one frame"), VideoWriter(tmp_path / "v.mp4", 12):
        pass
    assert list(tmp_path.iterdir()) == []


def test_frames_of_another_size_are_refused(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "v.mp4", 12) as video:
        video.write(_gradient(1, 32, 32))
        with pytest.raises(ValueError, match="after frames of"):
            video.write(_gradient(1, 32, 48))


def _accented(frame: np.ndarray) -> int:
    return int((np.abs(frame.astype(int) - ACCENT).max(axis=-1) < 40).sum())
