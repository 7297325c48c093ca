"""Recordings become shards: reproducible, resumable, with some episodes held out."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glassworld.errors import InputError
from glassworld.training.data.collect import CollectionConfig, load_shard
from glassworld.training.data.collect_recordings import (
    collect_recordings,
    save_recorded_start_images,
)
from glassworld.training.data.dataset import EpisodeDataset
from glassworld.training.sources.recordings import RecordedVideo, read_recordings
from glassworld.training.sources.source import WorldFormat
from tests.support.recorded import write_recording, write_video
from tests.support.small import write_random_shard

FORMAT, LENGTH = WorldFormat("gta_drive"), 13


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return recordings of 4, 2 and 1 episodes."""
    recordings = tmp_path / "recordings"
    recordings.mkdir()
    for name, frames in (("a", 52), ("b", 25), ("c", 20)):
        write_recording(recordings, name, frames)
    return recordings


def collect(
    folder: Path,
    recordings: list[RecordedVideo] | None = None,
    shards: int = 50,
    seconds: float | None = None,
) -> tuple[Path, Path]:
    """Collect shards of two episodes; return the folders of those to train on and of the others."""
    train, held_out = folder.parent / "train", folder.parent / "held-out"
    config = CollectionConfig(train, 0, shards, episodes=2, frames=LENGTH)
    recordings = recordings or read_recordings(folder, FORMAT, LENGTH)
    collect_recordings(recordings, FORMAT, config, held_out, seconds)
    return train, held_out


def first_frames(part: Path) -> list[int]:
    """Return the number of the video's frame that each episode begins with."""
    return [round(float(frames[0].mean())) for frames in EpisodeDataset(part).frames.numpy()]


def test_collect_recordings_cuts_episodes_and_holds_the_first_ones_out(folder: Path) -> None:
    train, held_out = collect(folder)
    assert len(list(train.glob("shard-*"))) == 3
    assert first_frames(train) == pytest.approx([12, 24, 36, 0, 12, 0], abs=1)
    assert first_frames(held_out) == pytest.approx([0], abs=1)
    episodes = load_shard(train / "shard-00000.safetensors")
    assert episodes.frames.shape == (2, 13, 64, 96, 3)
    assert episodes.pose.shape == (2, 13, 0)
    rows = np.arange(12, 25)
    rows[0] = rows[1]  # row 0 repeats row 1
    assert episodes.mouse[0, :, 1] == pytest.approx(rows / 1000)
    assert np.flatnonzero(episodes.keyboard[0, :, 0]).tolist() == [0, 1, 11]


def test_collect_recordings_interrupted_resumes_and_gives_the_same_files(folder: Path) -> None:
    train, _ = collect(folder)
    first, second, _ = sorted(train.glob("shard-*"))
    before, written = second.read_bytes(), first.stat().st_mtime_ns
    second.write_bytes(before[:1000])
    collect(folder)
    assert second.read_bytes() == before
    assert first.stat().st_mtime_ns == written


def test_collect_recordings_takes_no_more_than_the_preset(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train, held_out = collect(folder, shards=2)
    assert "the preset takes 4 of 7 episodes" in capsys.readouterr().out
    assert first_frames(train) == pytest.approx([12, 24, 36], abs=1)
    assert first_frames(held_out) == pytest.approx([0], abs=1)


def test_collect_recordings_out_of_time_stops_after_a_shard_and_continues(folder: Path) -> None:
    train, held_out = collect(folder, seconds=0)
    assert first_frames(train) == pytest.approx([12, 24], abs=1)
    assert first_frames(held_out) == pytest.approx([0], abs=1)
    collect(folder)
    assert len(EpisodeDataset(train)) == 6


def test_collect_recordings_keeps_the_episodes_before_damage(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recordings = read_recordings(folder, FORMAT, LENGTH)
    write_video(folder / "a.mp4", 30, 12)  # shorter than it was when it was checked
    train, _ = collect(folder, recordings)
    assert "skipped the rest of a.mp4: damaged after 2." in capsys.readouterr().out
    assert first_frames(train) == pytest.approx([12, 0, 12, 0], abs=1)


def test_collect_recordings_refuses_a_folder_of_other_episodes(folder: Path) -> None:
    collect(folder)
    write_recording(folder, "d", 20)
    with pytest.raises(InputError, match="holds episodes of other recordings or actions"):
        collect(folder)


def test_collect_recordings_notices_other_actions_but_not_where_the_videos_are(
    folder: Path,
) -> None:
    collect(folder)
    moved = folder.rename(folder.parent / "moved")
    collect(moved)
    actions = (moved / "b.csv").read_text()
    (moved / "b.csv").write_text(actions.replace("0.007", "-0.007"))
    with pytest.raises(InputError, match="holds episodes of other recordings or actions"):
        collect(moved)


def test_collect_recordings_takes_corrected_actions_where_no_shard_is_written_yet(
    folder: Path,
) -> None:
    for part in collect(folder):
        for shard in part.glob("shard-*"):
            shard.unlink()  # as after an interruption within the first one
    actions = (folder / "b.csv").read_text()
    (folder / "b.csv").write_text(actions.replace("0.007", "-0.007"))
    train, _ = collect(folder)
    assert len(list(train.glob("shard-*"))) == 3


def test_collect_recordings_of_a_single_episode_is_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "recordings"
    folder.mkdir()
    write_recording(folder, "a", 20)
    with pytest.raises(InputError, match="at least 2 are needed"):
        collect(folder)
    assert not (tmp_path / "train").exists()


def test_save_recorded_start_images_takes_them_from_all_over(folder: Path) -> None:
    train, _ = collect(folder)
    images = folder.parent / "pictures"
    save_recorded_start_images(train, images, count=3)
    means = []
    for number in (1, 2, 3):
        with Image.open(images / f"recording-{number}.png") as image:
            assert image.size == (96, 64)
            means.append(np.asarray(image).mean())
    assert means == pytest.approx([12, 36, 0], abs=1)


def test_save_recorded_start_images_reads_first_frames_alone(tmp_path: Path) -> None:
    write_random_shard(tmp_path, episodes=4, frames=101, height=64, width=96)
    tracemalloc.start()
    save_recorded_start_images(tmp_path, tmp_path / "pictures")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 101 * 64 * 96 * 3 / 5
