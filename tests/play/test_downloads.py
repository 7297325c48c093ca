"""Downloads: keys nobody can guess, and the oldest files go first."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from glassworld.play.downloads import MAX_FILES, DownloadStore, ServerFolder


def offer_file(store: DownloadStore, name: str) -> tuple[Path, str]:
    path = store.new_path(name)
    path.write_text(name, encoding="utf-8")
    return path, store.offer(path, name, "text/plain").removeprefix("/files/")


def test_offered_file_is_found_by_its_key_only() -> None:
    store = DownloadStore()
    path, key = offer_file(store, "notes.txt")
    download = store.get(key)
    assert download is not None
    assert (download.path, download.name, download.media_type) == (path, "notes.txt", "text/plain")
    assert len(key) == 24  # 144 bits
    assert store.get(path.name) is None
    store.close()
    assert not path.exists()
    assert store.get(key) is None


def test_more_files_than_the_limit_delete_the_oldest() -> None:
    store = DownloadStore()
    offered = [offer_file(store, f"{number}.txt") for number in range(MAX_FILES + 2)]
    assert [path.exists() for path, _ in offered] == [False] * 2 + [True] * MAX_FILES
    assert store.get(offered[1][1]) is None
    assert store.get(offered[2][1]) is not None
    store.close()


def test_more_bytes_than_the_limit_delete_the_oldest_but_not_the_newest_recording(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("glassworld.play.downloads.MAX_BYTES", 5)
    store = DownloadStore()
    offered = [offer_file(store, f"{number}.txt") for number in range(6)]  # of 5 bytes each
    assert [path.exists() for path, _ in offered] == [False] * 3 + [True] * 3
    store.close()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such file locks")
def test_folder_of_a_killed_server_is_removed_by_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """
import time
from glassworld.play.downloads import ServerFolder
folder = ServerFolder()
print(folder.path, flush=True)
time.sleep(60)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env={**os.environ, "TMPDIR": str(tmp_path)},
    ) as server:
        assert server.stdout is not None
        folder = Path(server.stdout.readline().strip())
        (folder / "trace.json").write_text("{}", encoding="utf-8")
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        beside = ServerFolder()
        assert folder.is_dir()  # its server is running
        server.kill()
        server.wait()
    (tmp_path / "glassworld-strange").mkdir()  # has no lock file
    after = ServerFolder()
    assert not folder.exists()
    assert (tmp_path / "glassworld-strange").is_dir()
    assert beside.path.is_dir()
    assert (after.path / "lock").read_text(encoding="utf-8") == f"{os.getpid()}\n"
    for own in (beside, after):
        own.close()
        assert not own.path.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such file locks")
def test_folder_of_an_earlier_process_of_the_same_number_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each server of a container that starts again may be process 1."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = tmp_path / "glassworld-earlier"
    folder.mkdir()
    (folder / "lock").write_text(f"{os.getpid()}\n", encoding="utf-8")
    ServerFolder().close()
    assert not folder.exists()
