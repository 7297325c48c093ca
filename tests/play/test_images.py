from __future__ import annotations

from pathlib import Path

from glassworld.play.images import load_gallery
from tests.support import tiny


def names(folder: Path) -> list[str]:
    return [each.name for each in load_gallery(folder, 32, 48)]


def test_the_gallery_is_the_folder_pictures_or_the_worlds_own_folder(tmp_path: Path) -> None:
    assert names(tmp_path) == []
    tiny.picture().save(tmp_path / "a_strip.png")
    tiny.picture().save(tmp_path / "b.JPG")
    (tmp_path / "inference.yaml").write_text("")
    assert names(tmp_path) == ["a strip", "b"]
    (tmp_path / "pictures").mkdir()
    tiny.picture().save(tmp_path / "pictures" / "start.webp")
    assert names(tmp_path) == ["start"]
    assert load_gallery(tmp_path, 32, 48)[0].image.size == (48, 32)
