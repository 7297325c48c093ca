"""Recorded videos: resampled with their actions, and what does not fit is named and skipped."""

import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from glassworld.engine.variants.registry import action_space
from glassworld.errors import InputError
from glassworld.training.sources.recordings import (
    RecordedVideo,
    read_frame_times,
    read_recordings,
    recordings_mode,
)
from glassworld.training.sources.source import WorldFormat
from tests.support.recorded import lay_on_side, trim_start, write_recording, write_video

DRIVE = WorldFormat("gta_drive")
LENGTH = 13


def only(folder: Path) -> RecordedVideo:
    (recording,) = read_recordings(folder, DRIVE, LENGTH)
    return recording


def brightness(recording: RecordedVideo) -> np.ndarray:
    return np.array([frame.mean() for frame in recording.decode(64, 96)])


def test_recording_at_the_worlds_rate_keeps_every_frame_and_row(tmp_path: Path) -> None:
    write_recording(tmp_path, "a", 40)
    recording = only(tmp_path)
    assert brightness(recording) == pytest.approx(np.arange(40), abs=1)
    assert recording.track.mouse is not None
    assert recording.track.mouse[:, 1] == pytest.approx(np.arange(40) / 1000)
    assert np.flatnonzero(recording.track.keyboard[:, 0]).tolist() == [3, 13, 23, 33]
    assert recording.episodes(LENGTH) == 3


def test_recording_at_another_rate_takes_the_nearest_frames_and_every_press(tmp_path: Path) -> None:
    write_recording(tmp_path, "a", 100, frame_rate=60)
    recording = only(tmp_path)
    assert recording.shown.tolist() == list(range(0, 100, 5))
    assert brightness(recording) == pytest.approx(np.arange(0, 100, 5), abs=1)
    # Row 1 holds the video's rows 1 to 5, row 3 those from 11 to 15: 3 and 13 were pressed.
    assert np.flatnonzero(recording.track.keyboard[:, 0]).tolist() == list(range(1, 20, 2))
    assert recording.track.mouse is not None
    expected = [0, *(np.arange(5, 100, 5) - 2) / 1000]
    assert recording.track.mouse[:, 1] == pytest.approx(expected)


def test_recording_of_thirty_frames_takes_two_of_every_five(tmp_path: Path) -> None:
    write_recording(tmp_path, "a", 61, frame_rate=30)
    shown = only(tmp_path).shown
    assert shown[::2].tolist() == list(range(0, 61, 5))
    assert shown[1::2].tolist() == list(range(2, 61, 5))


@pytest.mark.parametrize(("suffix", "codec"), [("mkv", "libx264"), ("avi", "mjpeg")])
def test_recording_in_other_containers_reads_the_same(
    suffix: str, codec: str, tmp_path: Path
) -> None:
    write_video(tmp_path / f"a.{suffix}", 40, 24, codec)
    (tmp_path / "a.txt").write_text("w*20 w+right*20")
    recording = only(tmp_path)
    assert brightness(recording) == pytest.approx(np.arange(0, 40, 2), abs=3)


def test_recording_with_uneven_times_shows_what_was_seen_at_each_time(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    times = np.cumsum([0, *([40, 160] * 20)])  # milliseconds; nothing changed for long
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, time in enumerate(times):
            image = np.full((64, 96, 3), number, np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = int(time), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert read_frame_times(path).seconds == pytest.approx(times / 1000, abs=0.002)
    (tmp_path / "a.txt").write_text(f"w*{len(times)}")
    (recording,) = read_recordings(tmp_path, WorldFormat("gta_drive", frame_rate=8), LENGTH)
    nearest = [int(np.abs(times - 125 * k).argmin()) for k in range(len(recording.shown))]
    assert recording.shown.tolist() == nearest


def test_recording_where_keys_exclude_each_other_takes_the_longest_held(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", 80, 48)
    (tmp_path / "a.txt").write_text("q*1 q*3 w*1 q*1 w*1 s*2 q*71")
    (recording,) = read_recordings(tmp_path, WorldFormat("templerun"), LENGTH)
    names = action_space("templerun").keyboard
    pressed = [names[row.argmax()] for row in recording.track.keyboard[:4]]
    assert pressed == ["nomove", "jump", "slide", "nomove"]
    assert recording.track.keyboard.sum(1).tolist() == [1] * 20
    assert recording.track.mouse is None


def test_recording_of_another_shape_is_cropped_centrally(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("libx264rgb", rate=12)
        stream.width, stream.height, stream.pix_fmt = 128, 64, "rgb24"
        stream.options = {"crf": "0"}
        image = np.zeros((64, 128, 3), np.uint8)
        image[:, 16:112] = 200
        for _ in range(20):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    (tmp_path / "a.txt").write_text("w*20")
    first = next(only(tmp_path).decode(64, 96))
    assert first.shape == (64, 96, 3)
    assert first.min() > 190


def test_recording_that_was_trimmed_has_a_row_for_each_frame_shown(tmp_path: Path) -> None:
    folder = tmp_path / "recordings"
    folder.mkdir()
    write_video(tmp_path / "whole.mp4", 60, 12)
    trim_start(tmp_path / "whole.mp4", folder / "a.mp4", 1)  # to before its only key frame
    (folder / "a.txt").write_text("w*48")
    recording = only(folder)
    assert brightness(recording) == pytest.approx(np.arange(12, 60), abs=1)


def test_recording_stored_on_its_side_is_shown_upright(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=12)
        stream.width, stream.height, stream.pix_fmt = 64, 96, "yuv420p"
        image = np.zeros((96, 64, 3), np.uint8)
        image[:48, :32] = 255  # its top left corner, shown at the top right
        for _ in range(20):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    lay_on_side(tmp_path / "a.mp4", 96)
    (tmp_path / "a.txt").write_text("w*20")
    first = next(only(tmp_path).decode(64, 96)).astype(float)
    assert first[:28, 52:].mean() > 250
    assert max(first[:28, :44].mean(), first[36:].mean()) < 5


def test_recording_whose_pixels_are_not_square_is_shown_at_its_true_width(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("libx264rgb", rate=12)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "rgb24"
        stream.codec_context.sample_aspect_ratio = Fraction(2)  # shown 128 wide
        stream.options = {"crf": "0"}
        image = np.zeros((64, 64, 3), np.uint8)
        image[:, 8:56] = 200  # 96 wide as shown, what a world of 64x96 takes
        for _ in range(20):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    (tmp_path / "a.txt").write_text("w*20")
    first = next(only(tmp_path).decode(64, 96))
    assert np.median(first[:, [2, -3]]) > 190
    assert np.median(first[[2, -3]]) > 190


def test_recordings_in_a_relative_folder_with_a_colon_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("12:30")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this system has no colons in names")
    write_recording(folder, "a", 40)
    assert brightness(only(folder)) == pytest.approx(np.arange(40), abs=1)


def test_read_recordings_names_and_skips_what_does_not_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_recording(tmp_path, "good", 40)
    write_video(tmp_path / "alone.mp4", 40, 12)
    for name in ("twice", "longer", "flying", "short", "slow"):
        write_video(
            tmp_path / f"{name}.mp4", 10 if name == "short" else 40, 5 if name == "slow" else 12
        )
    for name in ("twice.csv", "twice.json", "short.txt"):
        (tmp_path / name).write_text("w*10")
    (tmp_path / "longer.txt").write_text("w*41")
    (tmp_path / "flying.txt").write_text("fly*40")
    (tmp_path / "slow.txt").write_text("w*40")
    shutil.copy(tmp_path / "good.mp4", tmp_path / "good.mov")
    (tmp_path / "good.png").write_text("no video")  # an image beside a video is no second video
    (tmp_path / "notes.mp4").write_text("no video")
    (tmp_path / "notes.txt").write_text("w*40")
    recordings = read_recordings(tmp_path, DRIVE, LENGTH)
    assert [recording.path.name for recording in recordings] == ["good.mov"]
    lines = capsys.readouterr().out.splitlines()
    for line, said in zip(
        lines,
        [
            "skipped alone.mp4: no actions beside it; looked for alone.csv, alone.tsv, ",
            "skipped flying.mp4: ",
            "skipped good.mp4: its actions are those of good.mov too; keep one",
            "skipped good.png: 1 frames, but good.csv has 40 rows",
            "skipped longer.mp4: 40 frames, but longer.txt has 41 rows",
            "skipped notes.mp4: not readable as a video: Invalid data",
            "skipped short.mp4: lasts 0.8 s; an episode takes 1.0 s",
            "skipped slow.mp4: 5 frames a second; 12 are needed",
            "skipped twice.mp4: more than one action file, twice.csv and twice.json; keep one",
            "recordings: 1 of 10 videos, 0.1 minutes, 3 episodes of 13 frames, mode gta_drive",
        ],
        strict=True,
    ):
        assert line.startswith(said)
    assert "unknown key 'fly'; gta_drive has: w forward" in lines[1]


def test_read_recordings_with_nothing_left_is_an_error(tmp_path: Path) -> None:
    write_video(tmp_path / "alone.mp4", 40, 12)
    with pytest.raises(InputError, match="none of 1 videos can be used"):
        read_recordings(tmp_path, DRIVE, LENGTH)


def test_read_recordings_of_no_folder_or_an_empty_one_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: no such folder"):
        read_recordings(tmp_path / "nowhere", DRIVE, LENGTH)
    (tmp_path / "a.csv").touch()
    with pytest.raises(InputError, match="holds no videos"):
        read_recordings(tmp_path, DRIVE, LENGTH)


def test_decode_of_a_truncated_video_yields_what_is_good_and_says_where_it_ends(
    tmp_path: Path,
) -> None:
    write_recording(tmp_path, "a", 80)
    recording = only(tmp_path)
    video = tmp_path / "a.mp4"
    content = bytearray(video.read_bytes())
    middle = content.index(b"mdat") + 1500  # damaged since it was checked
    content[middle : middle + 1500] = bytes(1500)
    video.write_bytes(content)
    frames: list[np.ndarray] = []
    with pytest.raises(InputError, match=r"damaged after \d\.\d s"):
        frames.extend(recording.decode(64, 96))
    assert np.array([frame.mean() for frame in frames]) == pytest.approx(
        np.arange(len(frames)), abs=1
    )


def test_recordings_mode_follows_the_action_files(tmp_path: Path) -> None:
    write_recording(tmp_path, "a", 20)
    write_video(tmp_path / "b.mp4", 20, 12)
    (tmp_path / "b.txt").write_text("camera_up*20")  # of another mode, and alone
    write_recording(tmp_path, "c", 20)
    assert recordings_mode(tmp_path) == "gta_drive"
    assert recordings_mode(tmp_path, "gta_drive") == "gta_drive"
    with pytest.raises(InputError, match=r"of mode gta_drive, but the world's mode is universal"):
        recordings_mode(tmp_path, "universal")


def test_recordings_mode_of_rows_that_are_out_of_range_follows_their_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(tmp_path / "a.mp4", 40, 12)
    rows = "forward,back,mouse_vertical,mouse_horizontal\n" + "1,0,0,15\n" * 40
    (tmp_path / "a.csv").write_text(rows)  # the mouse in pixels
    assert recordings_mode(tmp_path) == "gta_drive"
    with pytest.raises(InputError, match="none of 1 videos can be used"):
        only(tmp_path)
    assert "column 1 is 15; numbers must be in [-1, 1]" in capsys.readouterr().out


def test_recordings_mode_that_is_ambiguous_asks_for_one(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", 20, 12)
    (tmp_path / "a.txt").write_text("w*20")
    assert recordings_mode(tmp_path, "templerun") == "templerun"
    with pytest.raises(InputError, match="the actions fit universal and gta_drive and temple"):
        recordings_mode(tmp_path)
