"""Latents as files, written block by block."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from glassworld.engine.media.latents import LatentsWriter
from glassworld.files import DiskFullError
from tests.support.disk import small_disk


@pytest.mark.parametrize("lengths", [(3,), (3, 3, 3), (6, 1, 3)])
def test_latents_written_in_blocks_are_the_file_of_all(
    tmp_path: Path, lengths: tuple[int, ...]
) -> None:
    blocks = [torch.randn(1, 16, frames, 4, 6) for frames in lengths]
    with LatentsWriter(tmp_path / "latents.safetensors") as file:
        for block in blocks:
            file.write(block)
    save_file({"latents": torch.cat(blocks, 2)}, tmp_path / "whole.safetensors")
    written = (tmp_path / "latents.safetensors").read_bytes()
    assert written == (tmp_path / "whole.safetensors").read_bytes()


def test_failed_run_leaves_the_latents_of_an_earlier_one(tmp_path: Path) -> None:
    path = tmp_path / "latents.safetensors"
    path.write_bytes(b"the last good ones")
    with suppress(RuntimeError), LatentsWriter(path) as file:
        file.write(torch.zeros(1, 16, 3, 4, 6))
        raise RuntimeError
    assert path.read_bytes() == b"the last good ones"
    assert list(tmp_path.iterdir()) == [path]


def test_full_disk_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    def write(path: Path, frames: int) -> None:
        with LatentsWriter(path) as file:
            for _ in range(frames):
                file.write(torch.zeros(1, 16, 1, 16, 16))  # 16 KB

    with small_disk(tmp_path / "disk", 400) as disk:
        for frames in (15, 60):  # full in the end, full among the blocks
            with pytest.raises(DiskFullError, match=r"latents\.safetensors: .* disk is full"):
                write(disk / "latents.safetensors", frames)
            assert list(disk.iterdir()) == []
