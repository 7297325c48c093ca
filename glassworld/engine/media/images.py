"""The start image: read, cropped, resized and scaled as the models were trained."""

from __future__ import annotations

import math
import struct
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from glassworld.errors import ImageError

MIN_SIDE = 16
DAMAGED = (ValueError, TypeError, RuntimeError, SyntaxError, EOFError, struct.error)
"""The errors of Pillow's readers for damaged files, beside `OSError`."""

MAX_PIXELS = 64_000_000
"""Larger images are refused by their header, before anything of them is decoded."""

ImageSource = str | Path | Image.Image

Frames = npt.NDArray[np.uint8]
"""Video frames as [N, H, W, 3]: red, green, blue in 0..255."""


def load_start_image(image: ImageSource, height: int, width: int) -> npt.NDArray[np.float32]:
    """Return the image as float32 [3, height, width] in [-1, 1], cropped centrally to that shape.

    Honors the orientation that a camera noted. Palettes, gray and 16-bit images become RGB, alpha
    is dropped, of an animation the first frame counts. Floating-point pixels lie in 0..1, or in
    0..255 where any exceeds 1. Raises `ImageError` for an image that is missing, unreadable,
    truncated, under 16 pixels on a side or over 64 megapixels.
    """
    if isinstance(image, Image.Image):
        return _prepare(_checked(image, "image"), height, width, "image")
    if not isinstance(image, str | Path):
        kind = type(image).__name__
        raise ImageError(f"image: give a path or a PIL image, not {kind}")
    name = str(image)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(image)
        with opened:
            return _prepare(_checked(opened, name), height, width, name)
    except FileNotFoundError:
        raise ImageError(f"{name}: no such image") from None
    except UnidentifiedImageError:
        raise ImageError(f"{name}: not a readable image; use PNG, JPEG or WebP") from None
    except Image.DecompressionBombError:
        raise ImageError(_too_large(name)) from None
    except IsADirectoryError:
        raise ImageError(f"{name}: is a folder; name an image file") from None
    except OSError as error:
        raise ImageError(f"{name}: cannot be read: {error.strerror or error}") from None
    except DAMAGED as error:
        raise ImageError(f"{name}: damaged or truncated: {error}") from None


def psnr(squared_error: float, peak: float = 255.0) -> float:
    """Return the peak signal-to-noise ratio in dB of a mean squared error; infinite if it is 0."""
    return 10 * math.log10(peak**2 / squared_error) if squared_error else math.inf


def _too_large(name: str) -> str:
    return f"{name}: over {MAX_PIXELS // 1_000_000} megapixels; scale it down first"


def _checked(image: Image.Image, name: str) -> Image.Image:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(_too_large(name))
    if min(width, height) < MIN_SIDE:
        raise ImageError(f"{name}: {width}x{height} pixels; each side needs at least {MIN_SIDE}")
    return image


def _prepare(image: Image.Image, height: int, width: int, name: str) -> npt.NDArray[np.float32]:
    try:
        image = _to_rgb(ImageOps.exif_transpose(image))
    except (OSError, *DAMAGED) as error:
        raise ImageError(f"{name}: damaged or truncated: {error}") from None
    # `crop` rounds the box's float edges to whole pixels, as the models' own preparation does;
    # `resize(box=...)` would not, and gives other pixels.
    image = image.crop(_crop_box(image.width, image.height, width, height))
    pixels = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), np.float32)
    return np.ascontiguousarray(((pixels / 255 - 0.5) / 0.5).transpose(2, 0, 1))


def _crop_box(
    width: int, height: int, target_width: int, target_height: int
) -> tuple[float, float, float, float]:
    """Return the central box of the target's shape, as wide or as high as the image."""
    wide, high = width, height
    if height / width > target_height / target_width:
        high = int(width * target_height / target_width)
    else:
        wide = int(height * target_width / target_height)
    left, top = (width - wide) / 2, (height - high) / 2
    return left, top, left + wide, top + high


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits a pixel; a plain conversion would clip at 255
        image = Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
    if image.mode == "F":
        pixels = np.nan_to_num(np.asarray(image))
        image = Image.fromarray(pixels * 255 if pixels.max() <= 1 else pixels)
    return image.convert("RGB")
