"""The maze's level: ViZDoom's `my_way_home` in new colours.

Rooms and corridors are the scenario's. Its textures are fine-grained and made for far larger
pictures; here every room has a colour and a bold motif of its own, drawn by this module, so that
a picture of 96 pixels says where one is. The vest that would end an episode is taken out.
"""

import io
import re
import struct
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Texture = NDArray[np.float32]

SIZE = 128
"""Pixels of a texture, one for each map unit; walls are as high."""
_VEST, _MAP_SPOT = b"type = 2018;", b"type = 9001;"
_Lump = tuple[bytes, bytes]
Colour = tuple[int, int, int]


class Design(NamedTuple):
    """A motif, the colour behind it and its own: 0..255, near ones of the engine's palette."""

    motif: Callable[[], Texture]
    ground: Colour
    figure: Colour


def _grid() -> tuple[Texture, Texture]:
    row, column = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    return row, column


def _soft(distance: Texture) -> Texture:
    """1 where negative, 0 where positive, three pixels of transition."""
    return np.clip(0.5 - distance / 3, 0, 1)


def _stripes() -> Texture:
    return _soft(np.abs(_grid()[1] % 32 - 16) - 7)


def _bands() -> Texture:
    return _soft(np.abs(_grid()[0] % 32 - 16) - 6)


def _panels() -> Texture:
    row, column = _grid()
    return _soft(np.maximum(np.abs(row - 60) - 44, np.abs(column % 64 - 32) - 22))


def _discs() -> Texture:
    row, column = _grid()
    return _soft(np.hypot(row % 64 - 32, column % 64 - 32) - 19)


def _diamonds() -> Texture:
    row, column = _grid()
    return _soft(np.abs(row % 64 - 32) + np.abs(column % 64 - 32) - 25)


def _chequers() -> Texture:
    row, column = _grid()
    return _soft(8 * np.sin(row * np.pi / 32) * np.sin(column * np.pi / 32))


def _arches() -> Texture:
    row, column = _grid()
    aside = column % 64 - 32
    return _soft(np.where(row < 52, np.hypot(row - 52, aside), np.abs(aside)) - 20)


def _zigzags() -> Texture:
    row, column = _grid()
    return _soft(np.abs((row + np.abs(column % 64 - 32)) % 42.667 - 21) - 9)


def _bricks() -> Texture:
    row, column = _grid()
    shifted = (column + 32 * (row // 32 % 2)) % 64
    return _soft(np.maximum(np.abs(row % 32 - 16) - 13, np.abs(shifted - 32) - 29))


_WALLS = {
    "BIGDOOR2": Design(_stripes, (115, 10, 10), (190, 60, 60)),
    "CEIL4_2": Design(_panels, (20, 20, 130), (80, 80, 220)),
    "CRATE2": Design(_diamonds, (110, 75, 40), (180, 135, 85)),
    "COMP01": Design(_discs, (40, 95, 30), (95, 170, 80)),
    "TLITE6_1": Design(_arches, (190, 190, 190), (125, 125, 125)),
    "FLOOR1_6": Design(_chequers, (200, 95, 20), (240, 170, 65)),
    "SILVER2": Design(_zigzags, (195, 105, 105), (245, 175, 175)),
    "SFALL2": Design(_bands, (50, 50, 50), (105, 105, 105)),
    "BIGBRIK1": Design(_bricks, (80, 62, 50), (140, 112, 92)),
}
"""The scenario's wall textures, each with the motif, ground and figure that take its place."""
_FLOOR = Design(_chequers, (75, 60, 48), (105, 85, 70))
_CEILING = Design(_panels, (60, 70, 90), (80, 95, 120))


def _draw(design: Design, shaded: bool) -> bytes:
    """The texture as a PNG file; a shaded one darkens towards a skirting board."""
    share = design.motif()[..., None]
    ground, figure = (np.array(each, np.float32) for each in (design.ground, design.figure))
    picture = share * figure + (1 - share) * ground
    if shaded:
        row = _grid()[0][..., None]
        picture *= 1.1 - 0.35 * row / SIZE
        picture *= 1 - 0.6 * _soft(116 - row)
    file = io.BytesIO()
    Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def repaint(original: bytes) -> bytes:
    """The scenario's WAD with new textures and without the vest."""
    lumps = _read(original)
    kept = [(name, _redirect(data) if name == b"TEXTMAP" else data) for name, data in lumps]
    textures = [(_new_name(name), _draw(design, True)) for name, design in _WALLS.items()]
    textures += [(b"GWFLOOR", _draw(_FLOOR, False)), (b"GWCEIL", _draw(_CEILING, False))]
    return _write([*kept, (b"TX_START", b""), *textures, (b"TX_END", b"")])


def _new_name(texture: str) -> bytes:
    return f"GWALL{list(_WALLS).index(texture)}".encode()


def _redirect(level: bytes) -> bytes:
    for name in _WALLS:
        level = level.replace(
            f'texturemiddle = "{name}"'.encode(), b'texturemiddle = "' + _new_name(name) + b'"'
        )
    level = re.sub(rb'texturefloor = "\w+"', b'texturefloor = "GWFLOOR"', level)
    level = re.sub(rb'textureceiling = "\w+"', b'textureceiling = "GWCEIL"', level)
    return level.replace(_VEST, _MAP_SPOT)


def _read(wad: bytes) -> list[_Lump]:
    _, count, directory = struct.unpack_from("<4sii", wad)
    entries = [struct.unpack_from("<ii8s", wad, directory + 16 * index) for index in range(count)]
    return [(name.rstrip(b"\0"), wad[start : start + size]) for start, size, name in entries]


def _write(lumps: list[_Lump]) -> bytes:
    body, directory, start = b"", b"", 12
    for name, data in lumps:
        directory += struct.pack("<ii8s", start + len(body), len(data), name)
        body += data
    return struct.pack("<4sii", b"PWAD", len(lumps), start + len(body)) + body + directory
