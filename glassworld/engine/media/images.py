"""The start image: read, cropped, resized and scaled as the models were trained."""

from __future__ import annotations

import io
import math
import os
import struct
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, TypeGuard

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from glassworld.errors import ImageError
from glassworld.file_signatures import HEAD_BYTES, describe_content, read_head

if TYPE_CHECKING:  # live play decodes uploads in processes that need no torch
    from torch import Tensor

MIN_SIDE = 16
DAMAGED = (ValueError, TypeError, RuntimeError, SyntaxError, EOFError, struct.error)
"""The errors of Pillow's readers for damaged files, beside `OSError`."""

MAX_PIXELS = 64_000_000
"""Larger images are refused by their header, before anything of them is decoded."""

Pixels: TypeAlias = "npt.NDArray[Any] | Tensor"
ImageSource: TypeAlias = (
    "str | Path | Image.Image | Pixels | bytes | bytearray | memoryview | BinaryIO"
)
"""A start image: a path, a PIL image, pixels, or an image file's content.

Pixels are a NumPy array or a torch tensor `[H, W, C]` or `[C, H, W]` of 1 (gray), 3 (RGB) or 4
(alpha, dropped) channels, or `[H, W]`; a batch axis of 1 may stand in front. They are uint8 in
0..255, uint16 in 0..65535, or floats in 0..1 (in 0..255 where any exceeds 1). Content is bytes or
a file opened in binary mode, such as a `BytesIO`, read from its start.
"""

CHANNELS = (1, 3, 4)

PROGRAMS = ("EPS", "WMF")
"""Formats that Pillow lets other programs draw; they are no pixels yet."""

BEGUN = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF", b"GIF8", b"BM", b"II*\0", b"MM\0*")
"""The first bytes of images, also of one whose header is cut short."""

Frames = npt.NDArray[np.uint8]
"""Video frames as [N, H, W, 3]: red, green, blue in 0..255."""


def load_start_image(image: ImageSource, height: int, width: int) -> npt.NDArray[np.float32]:
    """Return the image as float32 [3, height, width] in [-1, 1], cropped centrally to that shape.

    `image`: see `ImageSource`. Honors the orientation that a camera noted. Palettes, gray and
    16-bit images become RGB, alpha is dropped, of an animation the first frame counts.
    Floating-point pixels lie in 0..1, or in 0..255 where any exceeds 1. Raises `ImageError` for an
    image that is missing, unreadable, truncated, under 16 pixels on a side or over 64 megapixels.
    """
    if isinstance(image, Image.Image):
        return _prepare(_checked(image, "image"), height, width, "image")
    if isinstance(image, np.ndarray) or _is_tensor(image):
        return _prepare(_from_pixels(image), height, width, "image")
    if isinstance(image, str | os.PathLike):
        path = os.fspath(image)
        name = f"{path:.200}"
        file: str | BinaryIO = path
        if not path:
            raise ImageError("image: the path is empty; name an image file")
        if os.path.isdir(path):
            raise ImageError(f"{name}: is a folder; name an image file")
    else:
        name, file = "image", _content(image)
    with _opened(file, name) as opened:
        return _prepare(_checked(opened, name), height, width, name)


def _opened(file: str | BinaryIO, name: str) -> Image.Image:
    """Open an image file without decoding it; `name` stands in the errors."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as of a large size, which is refused below
            opened = Image.open(file)
        if opened.format in PROGRAMS:
            opened.close()
            raise UnidentifiedImageError
        return opened
    except FileNotFoundError:
        raise ImageError(f"{name}: no such image{_address_advice(name)}") from None
    except UnidentifiedImageError:
        raise ImageError(f"{name}: {_why_no_image(file)}; use PNG, JPEG or WebP") from None
    except Image.DecompressionBombError:
        raise ImageError(_too_large(name)) from None
    except OSError as error:
        raise ImageError(f"{name}: cannot be read: {error.strerror or error}") from None
    except DAMAGED as error:
        raise ImageError(f"{name}: damaged or truncated: {error}; use another copy") from None


def _why_no_image(file: str | BinaryIO) -> str:
    """Return what a file is that Pillow does not know."""
    try:
        if isinstance(file, str):
            head = read_head(Path(file))
        else:
            file.seek(0)
            head = file.read(HEAD_BYTES)
    except (OSError, ValueError):
        return "not a readable image"
    if head.startswith(BEGUN):
        return "damaged or truncated in its header"
    kind = describe_content(head)
    return f"is {kind}, not an image" if kind else "not a readable image"


def _address_advice(name: str) -> str:
    return "; download it and name its file" if "://" in name else "; name an image file"


def _content(image: object) -> BinaryIO:
    """Return an image file's content as a file; raise `ImageError` for anything else."""
    if isinstance(image, bytes | bytearray | memoryview):
        return io.BytesIO(image)
    if isinstance(image, io.TextIOBase):
        raise ImageError("image: this file is open as text; open it in binary mode, 'rb'")
    if callable(getattr(image, "read", None)):
        if getattr(image, "closed", False):
            raise ImageError("image: this file is closed; give an open file or its path")
        file: Any = image
        return file  # type: ignore[no-any-return]
    raise ImageError(
        "image: give a path, a PIL image, a NumPy array, a torch tensor, bytes or a binary file, "
        f"not {type(image).__name__}"
    )


def _from_pixels(pixels: Pixels) -> Image.Image:
    """Return an array or a tensor of pixels as an image; raise `ImageError` if it holds none."""
    shape = list(pixels.shape)
    batch = 1 if len(shape) == 4 and shape[0] == 1 else 0
    sides = shape[batch:]
    if len(sides) == 2:
        sides = [*sides, 1]
    first = len(sides) == 3 and sides[0] in CHANNELS and sides[2] not in CHANNELS
    if len(sides) != 3 or (sides[0] if first else sides[2]) not in CHANNELS:
        raise ImageError(
            f"image: shape {shape}; pixels are [H, W, C] or [C, H, W] of 1, 3 or 4 channels, "
            "or [H, W]"
            "; give such an array"
        )
    channels, height, width = sides if first else (sides[2], *sides[:2])
    _check_size(width, height, "image")
    table = _as_numbers(pixels).reshape(sides)
    table = _to_bytes(np.moveaxis(table, 0, 2) if first else table)
    return Image.fromarray(np.ascontiguousarray(table[..., 0] if channels == 1 else table[..., :3]))


def _is_tensor(image: object) -> TypeGuard[Tensor]:
    torch = sys.modules.get("torch")  # without it, there are no tensors
    return torch is not None and isinstance(image, torch.Tensor)


def _as_numbers(pixels: Pixels) -> npt.NDArray[Any]:
    """Return a tensor of any device, or an array, as an array."""
    if isinstance(pixels, np.ndarray):
        return pixels
    from torch import bfloat16

    try:
        tensor = pixels.detach().cpu()
        return (tensor.float() if tensor.dtype == bfloat16 else tensor).numpy()
    except (TypeError, RuntimeError):  # `NotImplementedError` too: sparse, quantized, without data
        raise ImageError(
            f"image: a tensor of {pixels.dtype}, {pixels.layout}, on {pixels.device} has no pixels "
            "to read; give a dense one of uint8 in 0..255 or floats in 0..1"
        ) from None


def _to_bytes(table: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Return pixels as uint8; raise `ImageError` for another type or range."""
    if table.dtype == np.uint8:
        return table
    if table.dtype == np.uint16:
        return (table // 257).astype(np.uint8)
    if table.dtype.kind != "f":
        raise ImageError(
            f"image: pixels of type {table.dtype}; give uint8 in 0..255, uint16 or floats in 0..1"
        )
    if not np.isfinite(table).all():
        raise ImageError("image: holds numbers that are not finite; replace them")
    low, high = float(table.min()), float(table.max())
    if low < 0 or high > 255:
        raise ImageError(
            f"image: floats from {low:g} to {high:g}; give floats in 0..1, or uint8 in 0..255"
        )
    scale = 255 if high <= 1 else 1
    return np.rint(table.astype(np.float64) * scale).astype(np.uint8)


def shrink_frames(frames: npt.NDArray[np.uint8], pixels: int) -> npt.NDArray[np.uint8]:
    """Scale frames [N, H, W, 3] down by the least whole factor that leaves `pixels` in each.

    Frames of no more pixels stay as they are.
    """
    height, width = frames.shape[1:3]
    factor = math.ceil((height * width / pixels) ** 0.5)
    if factor <= 1:
        return frames
    return np.stack([np.asarray(Image.fromarray(frame).reduce(factor)) for frame in frames])


def psnr(squared_error: float, peak: float = 255.0) -> float:
    """Return the peak signal-to-noise ratio in dB of a mean squared error; infinite if it is 0."""
    return 10 * math.log10(peak**2 / squared_error) if squared_error else math.inf


def _too_large(name: str) -> str:
    return f"{name}: over {MAX_PIXELS // 1_000_000} megapixels; scale it down first"


def _checked(image: Image.Image, name: str) -> Image.Image:
    _check_size(*image.size, name)
    return image


def _check_size(width: int, height: int, name: str) -> None:
    """Raise `ImageError` for an image that is too small or too large."""
    if width * height > MAX_PIXELS:
        raise ImageError(_too_large(name))
    if min(width, height) < MIN_SIDE:
        raise ImageError(f"{name}: {width}x{height} pixels; each side needs at least {MIN_SIDE}")


def _prepare(image: Image.Image, height: int, width: int, name: str) -> npt.NDArray[np.float32]:
    try:
        image = _to_rgb(ImageOps.exif_transpose(image))
    except (OSError, *DAMAGED) as error:
        raise ImageError(f"{name}: damaged or truncated: {error}; use another copy") from None
    pixels = np.asarray(crop_and_resize(image, height, width), np.float32)
    return np.ascontiguousarray(((pixels / 255 - 0.5) / 0.5).transpose(2, 0, 1))


def as_bytes(pixels: npt.NDArray[np.float32]) -> Frames:
    """Return the image `[H, W, 3]` of which `load_start_image` returned `pixels`."""
    image: Frames = np.rint((pixels.transpose(1, 2, 0) * 0.5 + 0.5) * 255).astype(np.uint8)
    return image


def crop_and_resize(image: Image.Image, height: int, width: int) -> Image.Image:
    """Return the center of an RGB image, cropped to the shape `height` x `width` and resized."""
    # `crop` rounds the box's float edges to whole pixels, as the models' own preparation does;
    # `resize(box=...)` would not, and gives other pixels.
    image = image.crop(_crop_box(image.width, image.height, width, height))
    return image.resize((width, height), Image.Resampling.BILINEAR)


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
        numbers = np.asarray(image).clip(0, 65535)
        deep = image.mode != "I" or numbers.max() > 255  # else converted from 8 bits
        image = Image.fromarray((numbers // 257 if deep else numbers).astype(np.uint8))
    if image.mode == "F":
        pixels = np.nan_to_num(np.asarray(image)).clip(0, 255)
        image = Image.fromarray(pixels * 255 if pixels.max() <= 1 else pixels)
    return image.convert("RGB")
