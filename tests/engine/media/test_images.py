"""The starting picture: exact preparation, and what bad pictures are told."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from glassworld.engine.media.images import load_start_image
from glassworld.errors import ImageError
from tests.support.bomb import png_claiming
from tests.support.paths import SHARED

GOLDEN = SHARED / "parity"


@pytest.mark.parametrize("mode", ["universal", "gta_drive", "templerun"])
def test_golden_image_is_exact(mode: str) -> None:
    folder = GOLDEN / mode
    if not folder.exists():
        pytest.skip(f"the golden tensors are not here: {folder}")
    from safetensors.numpy import load_file

    golden = load_file(folder / "expected.safetensors")["image"]
    height, width = golden.shape[-2:]
    picture = load_start_image(folder / "image.png", height, width)
    np.testing.assert_array_equal(picture, golden.reshape(3, height, width))


def _noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_image_of_the_right_size_is_only_scaled() -> None:
    image = _noise(48, 32)
    expected = (np.asarray(image, np.float32).transpose(2, 0, 1) / 255 - 0.5) / 0.5
    np.testing.assert_array_equal(load_start_image(image, 32, 48), expected)


@pytest.mark.parametrize(
    ("size", "box"), [((96, 32), (24, 0, 72, 32)), ((48, 64), (0, 16, 48, 48))]
)
def test_crop_keeps_the_middle(size: tuple[int, int], box: tuple[int, int, int, int]) -> None:
    image = _noise(*size)
    np.testing.assert_array_equal(
        load_start_image(image, 32, 48), load_start_image(image.crop(box), 32, 48)
    )


def test_path_and_open_image_are_the_same(tmp_path: Path) -> None:
    image = _noise(70, 50)
    image.save(tmp_path / "picture.png")
    expected = load_start_image(image, 32, 48)
    np.testing.assert_array_equal(load_start_image(tmp_path / "picture.png", 32, 48), expected)
    np.testing.assert_array_equal(load_start_image(str(tmp_path / "picture.png"), 32, 48), expected)


def test_camera_orientation_is_honored(tmp_path: Path) -> None:
    image = _noise(40, 60)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    image.save(tmp_path / "turned.png", exif=exif)
    turned = image.transpose(Image.Transpose.ROTATE_270)
    np.testing.assert_array_equal(
        load_start_image(tmp_path / "turned.png", 32, 48), load_start_image(turned, 32, 48)
    )


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1", "CMYK", "F", "I;16", "I"])
def test_every_image_mode_becomes_rgb(mode: str) -> None:
    ramp = np.tile(np.linspace(0, 255, 48).astype(np.uint8), (32, 1))
    if mode.startswith("I"):
        scaled = (ramp.astype(np.int32) * 257).astype(np.uint16 if mode == "I;16" else np.int32)
        image = Image.fromarray(scaled)
    else:
        image = Image.fromarray(ramp).convert(mode)
    picture = load_start_image(image, 32, 48)
    assert picture.shape == (3, 32, 48)
    if mode != "1":  # black and white has no ramp left
        expected = ramp.astype(np.float32) / 127.5 - 1
        assert np.abs(picture - expected).max() < 0.02


def test_integers_of_8_bits_keep_their_values() -> None:
    gray = _noise(48, 32).convert("L")
    np.testing.assert_array_equal(
        load_start_image(gray.convert("I"), 32, 48), load_start_image(gray, 32, 48)
    )


def test_floating_point_pixels_may_lie_in_0_to_1(tmp_path: Path) -> None:
    ramp = np.tile(np.linspace(0, 1, 48, dtype=np.float32), (32, 1))
    ramp[0, 0] = np.nan  # black
    Image.fromarray(ramp).save(tmp_path / "float.tiff")
    picture = load_start_image(tmp_path / "float.tiff", 32, 48)
    assert np.abs(picture - (2 * np.nan_to_num(ramp) - 1)).max() < 0.01


def test_first_frame_of_an_animation_counts(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (32, 32), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    picture = load_start_image(tmp_path / "a.gif", 16, 16)
    np.testing.assert_allclose(picture.mean(axis=(1, 2)), [1, -1, -1], atol=0.05)


@pytest.mark.parametrize(("width", "height"), [(9000, 9000), (12000, 12000), (60000, 60000)])
def test_gigantic_image_is_refused_by_its_header(tmp_path: Path, width: int, height: int) -> None:
    (tmp_path / "bomb.png").write_bytes(png_claiming(width, height))
    reason = "over 64 megapixels; scale it down first"
    with pytest.raises(ImageError) as caught:
        load_start_image(tmp_path / "bomb.png", 32, 48)
    assert str(caught.value) == f"{tmp_path / 'bomb.png'}: {reason}"
    with pytest.raises(ImageError) as caught:
        load_start_image((tmp_path / "bomb.png").read_bytes(), 32, 48)
    assert str(caught.value) == f"image: {reason}"


def test_small_image_is_refused_with_the_reason_alone(tmp_path: Path) -> None:
    _noise(8, 8).save(tmp_path / "tiny.png")
    with pytest.raises(ImageError) as caught:
        load_start_image(tmp_path / "tiny.png", 32, 48)
    expected = f"{tmp_path / 'tiny.png'}: 8x8 pixels; each side needs at least 16"
    assert str(caught.value) == expected


RGB = np.asarray(_noise(70, 50))


@pytest.mark.parametrize(
    "pixels",
    [
        RGB,
        RGB.transpose(2, 0, 1),
        RGB[None],
        RGB[::-1][::-1],
        np.dstack([RGB, RGB[..., :1]]),
        RGB.astype(np.uint16) * 257,
        RGB.astype(np.float32),
        RGB / 255,
        torch.from_numpy(RGB.copy()),
        torch.from_numpy(RGB.copy()).permute(2, 0, 1),
        torch.from_numpy(RGB.copy()).permute(2, 0, 1)[None] / 255,
        (torch.from_numpy(RGB / 255)).requires_grad_(),
        torch.from_numpy(RGB.copy()).to(torch.bfloat16),
    ],
    ids=lambda pixels: f"{type(pixels).__name__}-{list(pixels.shape)}-{pixels.dtype}",
)
def test_pixels_equal_the_image_that_holds_them(pixels: Any) -> None:
    expected = load_start_image(Image.fromarray(RGB), 32, 48)
    np.testing.assert_array_equal(load_start_image(pixels, 32, 48), expected)


@pytest.mark.parametrize("shape", [(50, 70), (50, 70, 1), (1, 50, 70), (1, 1, 50, 70)])
def test_gray_pixels_become_rgb(shape: tuple[int, ...]) -> None:
    expected = load_start_image(Image.fromarray(RGB[..., 0]), 32, 48)
    np.testing.assert_array_equal(load_start_image(RGB[..., 0].reshape(shape), 32, 48), expected)


def test_content_of_a_file_equals_its_path(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    _noise(70, 50).save(path)
    expected = load_start_image(path, 32, 48)
    written = io.BytesIO()
    written.write(path.read_bytes())  # its position is at the end
    for content in (path.read_bytes(), bytearray(path.read_bytes()), written):
        np.testing.assert_array_equal(load_start_image(content, 32, 48), expected)
    with path.open("rb") as file:
        np.testing.assert_array_equal(load_start_image(file, 32, 48), expected)
        assert not file.closed


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (3, "give a path, a PIL image, a NumPy array, .* not int"),
        (None, "not NoneType"),
        (b"", "is an empty file"),
        (b"\x89PNG\r\n\x1a\n", "damaged or truncated"),
        ("", "the path is empty"),
        (b"text", "not a readable image"),
        (io.StringIO("text"), "binary mode"),
        (np.zeros((50, 70, 2), np.uint8), r"shape \[50, 70, 2\]"),
        (np.zeros((2, 50, 70, 3), np.uint8), r"shape \[2, 50, 70, 3\]"),
        (np.zeros(70, np.uint8), r"shape \[70\]"),
        (np.zeros((8, 70, 3), np.uint8), "70x8 pixels; each side needs at least 16"),
        (np.broadcast_to(np.uint8(0), (20000, 4000, 3)), "over 64 megapixels"),
        (np.zeros((50, 70, 3), np.int64), "type int64"),
        (np.zeros((50, 70, 3), bool), "type bool"),
        (np.zeros((50, 70, 3), complex), "type complex128"),
        (np.full((50, 70, 3), -1.0), "floats from -1 to -1; give floats in 0..1"),
        (np.full((50, 70, 3), 300.0), "floats from 300 to 300"),
        (np.full((50, 70, 3), np.nan), "not finite"),
        (torch.zeros(50, 70, 3, dtype=torch.int32), "type int32"),
        (torch.zeros(50, 70, 3).to_sparse(), "a tensor of torch.float32, torch.sparse_coo"),
        (torch.zeros(50, 70, 3, device="meta"), "on meta has no pixels"),
        (torch.zeros(50, 70, 3, dtype=torch.float8_e4m3fn), "a tensor of torch.float8_e4m3fn"),
    ],
)
def test_image_that_is_none_is_refused_with_the_reason(image: Any, reason: str) -> None:
    with pytest.raises(ImageError, match=f"^image: .*{reason}") as caught:
        load_start_image(image, 32, 48)
    assert "\n" not in str(caught.value)


def test_bad_images_are_named_with_the_problem(tmp_path: Path) -> None:
    _noise(64, 64).save(tmp_path / "whole.png")
    content = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "page.png").write_bytes(b"<!DOCTYPE html><title>404</title>")
    (tmp_path / "pointer.png").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    (tmp_path / "photo.heic").write_bytes(bytes(3) + b"\x18ftypheic" + bytes(40))
    (tmp_path / "drawing.svg").write_bytes(b'<?xml version="1.0"?>\n<svg/>')
    _noise(64, 64).save(tmp_path / "drawing.eps")
    _noise(15, 64).save(tmp_path / "thin.png")
    header = b"\x89PNG\r\n\x1a\n" + (5).to_bytes(4, "big") + b"IHDRabcde" + bytes(4)
    (tmp_path / "short.png").write_bytes(header)
    for name, said in {
        "cut.png": "damaged or truncated",
        "short.png": "damaged or truncated",
        "text.png": "not a readable image",
        "empty.png": "is an empty file",
        "page.png": "is a web page .*, not an image",
        "pointer.png": "is a Git LFS pointer .*, not an image",
        "photo.heic": r"is a HEIC photo \(save it as JPEG\), not an image",
        "drawing.svg": "is an SVG drawing, not an image",
        "drawing.eps": "is a PostScript drawing, not an image",
        "thin.png": "15x64 pixels; each side needs at least 16",
        "nowhere.png": "no such image",
        ".": "is a folder; name an image file",
    }.items():
        with pytest.raises(ImageError, match=said) as caught:
            load_start_image(tmp_path / name, 32, 48)
        assert str(caught.value).startswith(str(tmp_path))
