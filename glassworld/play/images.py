"""Pictures that come in (starting pictures, checked and cut to size) and go out (frames)."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from glassworld.engine.media.images import DAMAGED, load_picture
from glassworld.errors import ImageError
from glassworld.play.protocol import Encoding

Frames = npt.NDArray[np.uint8]

FORMATS = ("PNG", "JPEG", "WEBP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
MOST_PIXELS = 16_000_000
MOST_PICTURES = 24


@dataclass(frozen=True)
class StartingPicture:
    """A picture at the world's size: small, and the very pixels that a replay needs."""

    name: str
    image: Image.Image

    def png(self) -> bytes:
        return encode(np.asarray(self.image)[None], "png")[0]


def prepare(data: bytes, name: str, height: int, width: int) -> StartingPicture:
    """Decode and crop a picture; an `ImageError` for anything that is none or is too large."""
    try:
        opened = Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(_too_large(name)) from None
    except (OSError, *DAMAGED):
        raise ImageError(f"{name}: not a PNG, JPEG or WebP picture") from None
    if opened.width * opened.height > MOST_PIXELS:
        raise ImageError(_too_large(name))
    pixels = load_picture(opened, height, width)
    eight_bit = np.rint((pixels * 0.5 + 0.5) * 255).astype(np.uint8)
    return StartingPicture(name, Image.fromarray(eight_bit.transpose(1, 2, 0)))


def _too_large(name: str) -> str:
    return f"{name}: over {MOST_PIXELS // 1_000_000} megapixels; scale it down first"


def gallery(folder: Path, height: int, width: int) -> list[StartingPicture]:
    """The pictures in the folder `pictures` of a world's folder, or in that itself, by name."""
    own = folder / "pictures"
    among = own if own.is_dir() else folder
    files = sorted(
        path for path in among.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file()
    )
    return [
        prepare(path.read_bytes(), path.stem.replace("_", " "), height, width)
        for path in files[:MOST_PICTURES]
    ]


def encode(frames: Frames, encoding: Encoding) -> list[bytes]:
    """Each of `frames` uint8 [n, H, W, 3] as a PNG (fast, lossless) or a JPEG (small)."""
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
