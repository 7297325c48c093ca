"""Collected shards: reproducible, resumable, checked when read."""

from pathlib import Path

import pytest

pytest.importorskip("vizdoom")

from glassworld.errors import InputError
from glassworld.training.data.collect import CollectionConfig, collect_shards, load_shard


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


def test_load_shard_damaged_is_refused_by_name(tmp_path: Path) -> None:
    shard = tmp_path / "shard-00000.safetensors"
    shard.write_bytes(b"cut short")
    with pytest.raises(InputError, match="shard-00000"):
        load_shard(shard)


def test_collection_config_refuses_lengths_that_are_not_1_plus_4n(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="1 \\+ 4n"):
        CollectionConfig(tmp_path, seed=0, shards=1, frames=120)
