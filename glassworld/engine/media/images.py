"""The starting picture: read, cropped, resized and scaled as the models were trained."""

from __future__ import annotations

import math
import struct
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from glassworld.errors import ImageError

SMALLEST_SIDE = 16
DAMAGED = (ValueError, TypeError, RuntimeError, SyntaxError, EOFError, struct.error)
"""What Pillow's readers raise, beside an `OSError`, for files that somebody has damaged."""

MOST_PIXELS = 64_000_000
"""Larger pictures are refused by their header, before anything of them is decoded."""


def load_picture(
    image: str | Path | Image.Image, height: int, width: int
) -> npt.NDArray[np.float32]:
    """The picture as float32 [3, height, width] in [-1, 1], cropped centrally to that shape.

    Honours the orientation a camera noted; palettes, grey and 16-bit pictures become RGB, alpha
    is dropped, of an animation the first frame counts. Floating-point pixels lie in 0..1, or in
    0..255 where any exceeds 1. Raises `ImageError` for a picture that is
    missing, unreadable, truncated, under 16 pixels on a side or over 64 megapixels.
    """
    if isinstance(image, Image.Image):
        return _prepare(_checked(image, "picture"), height, width, "picture")
    if not isinstance(image, str | Path):
        kind = type(image).__name__
        raise ImageError(f"picture: a path or a PIL image is needed, not {kind}")
    name = str(image)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(image)
        with opened:
            return _prepare(_checked(opened, name), height, width, name)
    except FileNotFoundError:
        raise ImageError(f"{name}: no such picture") from None
    except UnidentifiedImageError:
        raise ImageError(f"{name}: not a picture that can be read (PNG, JPEG, WebP ...)") from None
    except Image.DecompressionBombError:
        raise ImageError(_too_large(name)) from None
    except IsADirectoryError:
        raise ImageError(f"{name}: a folder; name a picture") from None
    except OSError as error:
        raise ImageError(f"{name}: cannot be read: {error.strerror or error}") from None
    except DAMAGED as error:
        raise ImageError(f"{name}: damaged or truncated: {error}") from None


def psnr(squared_error: float, peak: float = 255.0) -> float:
    """Return the peak signal-to-noise ratio in dB of a mean squared error; infinite if it is 0."""
    return 10 * math.log10(peak**2 / squared_error) if squared_error else math.inf


def _too_large(name: str) -> str:
    return f"{name}: over {MOST_PIXELS // 1_000_000} megapixels; scale it down first"


def _checked(image: Image.Image, name: str) -> Image.Image:
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise ImageError(_too_large(name))
    if min(width, height) < SMALLEST_SIDE:
        raise ImageError(
            f"{name}: {width}x{height} pixels; at least {SMALLEST_SIDE} on each side are needed"
        )
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
    """The central box of the target's shape, as wide or as high as the picture."""
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
