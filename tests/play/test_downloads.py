"""Downloads: keys nobody can guess, and the oldest files go first."""

from __future__ import annotations

from pathlib import Path

from glassworld.play.downloads import MAX_FILES, DownloadStore


def offer_file(store: DownloadStore, name: str) -> tuple[Path, str]:
    path = store.new_path(name)
    path.write_text(name)
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
