"""Start images and encoded frames."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glassworld.errors import ImageError
from glassworld.play.images import encode_images, load_gallery, prepare_image
from tests.support import tiny


def names(folder: Path) -> list[str]:
    return [image.name for image in load_gallery(folder, 32, 48)]


def test_gallery_is_the_pictures_folder_or_else_the_world_folder(tmp_path: Path) -> None:
    assert names(tmp_path) == []
    tiny.picture().save(tmp_path / "a_strip.png")
    tiny.picture().save(tmp_path / "b.JPG")
    (tmp_path / "inference.yaml").write_text("", encoding="utf-8")
    assert names(tmp_path) == ["a strip", "b"]
    (tmp_path / "pictures").mkdir()
    tiny.picture().save(tmp_path / "pictures" / "start.webp")
    assert names(tmp_path) == ["start"]
    assert load_gallery(tmp_path, 32, 48)[0].image.size == (48, 32)


def test_prepared_image_as_png_keeps_every_pixel() -> None:
    buffer = io.BytesIO()
    tiny.picture(64, 96).save(buffer, "PNG")
    image, pixels = prepare_image(buffer.getvalue(), "mine", 32, 48)
    assert pixels == 64 * 96
    reopened = np.asarray(Image.open(io.BytesIO(image.png())))
    np.testing.assert_array_equal(reopened, np.asarray(image.image))


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n" + b"\0" * 60, b"<svg/>"])
def test_prepare_image_from_another_file_is_an_image_error(data: bytes) -> None:
    with pytest.raises(ImageError, match="mine: not a PNG, JPEG or WebP image"):
        prepare_image(data, "mine", 32, 48)


def test_frames_are_encoded_lossless_as_png_and_smaller_as_jpeg() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (2, 32, 48, 3), np.uint8)
    lossless, small = encode_images(noise, "png"), encode_images(noise, "jpeg")
    for frame, png, jpeg in zip(noise, lossless, small, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png))), frame)
        assert len(jpeg) < len(png)
