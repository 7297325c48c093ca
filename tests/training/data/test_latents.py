"""Encoded episodes: damaged files are encoded again, under the same names of tensors."""

from pathlib import Path

import torch
from safetensors import safe_open

from glassworld.training.data.latents import encode_episodes
from tests.support.small import small_vae, write_random_shard


def test_encode_episodes_encodes_damaged_files_again(tmp_path: Path) -> None:
    write_random_shard(tmp_path, episodes=2, frames=5, height=32, width=48)
    encoder = small_vae().encoder
    first = encode_episodes(encoder, tmp_path, tmp_path / "latents", 3)
    encoded = tmp_path / "latents" / "shard-00000.safetensors"
    with safe_open(encoded, "numpy") as file:
        names = {"latents", "grey", "far", "pictures", "keyboard", "mouse", "pose"}
        assert set(file.keys()) == names  # runs that exist have these
    truncated = tmp_path / "truncated"  # another file, because the first one is memory-mapped
    truncated.write_bytes(encoded.read_bytes()[:1000])
    truncated.replace(encoded)
    again = encode_episodes(encoder, tmp_path, tmp_path / "latents", 3)
    for one, other in zip(first.tensors, again.tensors, strict=True):
        assert torch.equal(one, other)
