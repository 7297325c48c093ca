"""Start images, checked and cropped to the world's size, and encoded frames."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from glassworld.engine.media.images import DAMAGED, as_bytes, load_start_image
from glassworld.errors import ImageError
from glassworld.play.protocol import Encoding

Frames = npt.NDArray[np.uint8]

FORMATS = ("PNG", "JPEG", "WEBP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
MAX_PIXELS = 16_000_000
MAX_GALLERY_IMAGES = 24

START_OF_SCAN, MAX_SCANNED_PIXELS = b"\xff\xda", 16 * MAX_PIXELS
"""A progressive JPEG is decoded once for each of its scans; it usually has ten."""


@dataclass(frozen=True)
class StartImage:
    """An image at the world's size; a replay needs exactly these pixels."""

    name: str
    image: Image.Image

    def png(self) -> bytes:
        """Return the image as a PNG."""
        return encode_images(np.asarray(self.image)[None], "png")[0]


def prepare_image(data: bytes, name: str, height: int, width: int) -> tuple[StartImage, int]:
    """Decode an image file and crop it; return it and how many pixels it had.

    Raises `ImageError` if it is invalid, too large or made to be slow.
    """
    try:
        opened = Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(_too_large(name)) from None
    except (OSError, *DAMAGED):
        raise ImageError(f"{name}: not a PNG, JPEG or WebP image; convert it") from None
    pixels = opened.width * opened.height
    if pixels > MAX_PIXELS:
        raise ImageError(_too_large(name))
    if opened.format == "JPEG" and pixels * data.count(START_OF_SCAN) > MAX_SCANNED_PIXELS:
        raise ImageError(f"{name}: a JPEG of too many scans; save it without progressive loading")
    values = load_start_image(opened, height, width)
    return StartImage(name, Image.fromarray(as_bytes(values))), pixels


def _too_large(name: str) -> str:
    return f"{name}: larger than {MAX_PIXELS // 1_000_000} megapixels; scale it down first"


def load_gallery(folder: Path, height: int, width: int) -> list[StartImage]:
    """Return the start images of a world, sorted by name.

    They are the image files in `folder/pictures` or, without that folder, in `folder` itself.
    """
    pictures = folder / "pictures"
    source = pictures if pictures.is_dir() else folder
    files = sorted(
        path for path in source.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file()
    )
    return [
        prepare_image(path.read_bytes(), path.stem.replace("_", " "), height, width)[0]
        for path in files[:MAX_GALLERY_IMAGES]
    ]


def encode_images(frames: Frames, encoding: Encoding) -> list[bytes]:
    """Encode each of `frames` uint8 [n, H, W, 3] as PNG (fast, lossless) or JPEG (small)."""
    encoded = []
    for frame in frames:
        buffer = io.BytesIO()
        image = Image.fromarray(frame)
        if encoding == "png":
            image.save(buffer, "PNG", compress_level=1)
        else:
            image.save(buffer, "JPEG", quality=90)
        encoded.append(buffer.getvalue())
    return encoded
