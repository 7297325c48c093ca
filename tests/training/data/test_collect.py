"""Collected shards: reproducible, resumable, checked when read."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("vizdoom")

from glassworld.errors import InputError
from glassworld.training.data.collect import (
    CollectionConfig,
    Episodes,
    collect_shards,
    contact_sheet,
    load_shard,
    record_episodes,
    save_start_images,
)
from tests.support.square_env import MAPPING, register


def test_collect_shards_interrupted_resumes_and_gives_the_same_files(tmp_path: Path) -> None:
    config = CollectionConfig(tmp_path, seed=5, shards=2, episodes=2, frames=13)
    first, second = collect_shards(config)
    episodes, before = load_shard(second), second.read_bytes()
    assert episodes.frames.shape == (2, 13, 64, 96, 3)
    assert (episodes.keyboard[:, 0] == episodes.keyboard[:, 1]).all()
    second.write_bytes(before[:1000])
    written = first.stat().st_mtime_ns
    collect_shards(config)
    assert second.read_bytes() == before
    assert first.stat().st_mtime_ns == written


def test_collect_shards_by_two_processes_gives_the_same_files(tmp_path: Path) -> None:
    config = CollectionConfig(tmp_path / "one", 3, shards=2, episodes=1, frames=5, source="drive")
    one = collect_shards(config)
    two = collect_shards(replace(config, folder=tmp_path / "two"), workers=2)
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]


def test_collect_shards_without_time_left_collects_one(tmp_path: Path) -> None:
    config = CollectionConfig(tmp_path, 3, shards=3, episodes=1, frames=5, source="drive")
    assert len(collect_shards(config, seconds=0.0)) == 1
    assert len(collect_shards(config, seconds=0.0)) == 1
    assert len(collect_shards(config)) == 3


def test_load_shard_damaged_is_refused_by_name(tmp_path: Path) -> None:
    shard = tmp_path / "shard-00000.safetensors"
    shard.write_bytes(b"cut short")
    with pytest.raises(InputError, match="shard-00000"):
        load_shard(shard)


def test_collection_config_refuses_lengths_that_are_not_1_plus_4n(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="1 \\+ 4n"):
        CollectionConfig(tmp_path, seed=0, shards=1, frames=120)


@pytest.fixture
def ending_source(tmp_path: Path) -> str:
    """Return the name of a source whose episodes end when the square reaches the right edge."""
    register()
    mapping = tmp_path / "keys.yaml"
    mapping.write_text(MAPPING)
    return f"gymnasium:glassworld-tests/Ending-v0@{mapping}"


def test_record_episodes_leaves_out_those_that_end_too_early(ending_source: str) -> None:
    episodes = record_episodes(ending_source, 6, 33, (4, 0))
    assert episodes.frames.shape == (6, 33, 64, 96, 3)
    assert episodes.pose.shape == (6, 33, 0)
    at_edge = (episodes.frames[:, :, :, -1] == 255).all(-1).any(-1)
    assert not at_edge[:, :-1].any()
    again = record_episodes(ending_source, 6, 33, (4, 0))
    assert (again.frames == episodes.frames).all()
    assert (again.mouse == episodes.mouse).all()


def test_record_episodes_without_any_that_is_long_enough_says_how_long_they_are(
    ending_source: str,
) -> None:
    with pytest.raises(InputError, match=r"Ending-v0.*end too early, after \d+ frames") as refusal:
        record_episodes(ending_source, 1, 4001, (4, 0))
    assert "training needs episodes of 4001" in str(refusal.value)


@pytest.mark.parametrize(("size", "shown"), [((64, 96), (64, 96)), ((352, 640), (71, 128))])
def test_contact_sheet_scales_large_frames_down(
    size: tuple[int, int], shown: tuple[int, int]
) -> None:
    frames = np.full((2, 13, *size, 3), 100, np.uint8)
    sheet = contact_sheet(Episodes(frames, *[np.zeros((2, 13, 0), np.float32)] * 3))
    assert sheet.size == (12 * shown[1], 2 * shown[0])
    assert sheet.getextrema() == ((100, 100),) * 3


def test_save_start_images_names_files_after_the_source(ending_source: str, tmp_path: Path) -> None:
    save_start_images(ending_source, tmp_path / "images", count=2)
    names = [path.name for path in sorted((tmp_path / "images").iterdir())]
    assert names == [f"gymnasium-glassworld-tests-Ending-v0-{number}.png" for number in (1, 2)]
