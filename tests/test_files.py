"""Files are written whole or not at all, with the true reason."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from glassworld.engine.media.video import write_video
from glassworld.errors import InputError
from glassworld.files import (
    DiskFullError,
    check_writable,
    draft_of,
    remove_drafts,
    replacing,
    write_file,
)
from tests.support.disk import fill, small_disk


def test_write_file_replaces_the_content(tmp_path: Path) -> None:
    write_file(tmp_path / "a.json", b"old")
    write_file(tmp_path / "a.json", b"new")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"new"]


def test_failure_keeps_the_old_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    write_file(tmp_path / "a.json", b"old")
    with suppress(ZeroDivisionError), replacing(tmp_path / "a.json") as partial:
        partial.write_bytes(b"half")
        raise ZeroDivisionError
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are POSIX's")
def test_file_of_a_library_may_be_read_as_any_other(tmp_path: Path) -> None:
    write_file(tmp_path / "plain", b"")
    with replacing(tmp_path / "weights.safetensors") as temporary:
        save_file({"weight": np.zeros(2)}, temporary)  # writes for its user alone
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_remove_drafts_removes_what_was_being_written_and_nothing_else(tmp_path: Path) -> None:
    kept = [tmp_path / name for name in (".gitignore", "state.pt", ".env.local", "deep/world/a.b")]
    drafts = [draft_of(path) for path in kept]
    for path in (*kept, *drafts):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"1")
    draft_of(tmp_path / "deep" / "world").mkdir()
    remove_drafts(tmp_path)
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == set(kept)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["world"]


def test_processes_of_equal_numbers_share_a_folder(tmp_path: Path) -> None:
    """Nested in one process, as in two containers whose processes have the same number."""
    path = tmp_path / "a.json"
    with replacing(path) as first:
        first.write_bytes(b"first")
        write_file(path, b"second")
        assert path.read_bytes() == b"second"
    assert [left.read_bytes() for left in tmp_path.iterdir()] == [b"first"]


def test_check_of_a_folder_leaves_the_probe_of_an_equal_number_alone(tmp_path: Path) -> None:
    probe = tmp_path / f".writable.{os.getpid()}"
    probe.touch()
    check_writable(tmp_path)
    assert list(tmp_path.iterdir()) == [probe]


def test_missing_folder_is_an_input_error_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file or directory"):
        write_file(tmp_path / "none" / "a.json", b"new")


def test_folder_on_a_drive_that_is_not_there_is_an_input_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "exists", lambda path: False)
    with pytest.raises(InputError, match="No such file or directory"):
        check_writable(tmp_path / "none")


def write_bytes(folder: Path, frames: np.ndarray) -> None:
    write_file(folder / "a.bin", frames.tobytes())


def write_mp4(folder: Path, frames: np.ndarray) -> None:
    write_video(folder / "a.mp4", frames, 12)


def write_tensors(folder: Path, frames: np.ndarray) -> None:
    with replacing(folder / "a.safetensors") as path:
        save_file({"frames": frames}, path)


@pytest.mark.parametrize("write", [write_bytes, write_mp4, write_tensors])
def test_full_disk_is_named_and_nothing_is_left(
    tmp_path: Path, write: Callable[[Path, np.ndarray], None]
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (60, 64, 64, 3), np.uint8)
    with small_disk(tmp_path / "disk", 100) as disk:
        with pytest.raises(DiskFullError, match="the disk is full"):
            write(disk, noise)
        assert list(disk.iterdir()) == []
        fill(disk)
        with pytest.raises(DiskFullError):
            write(disk, noise)
