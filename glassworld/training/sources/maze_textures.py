"""The maze's level: ViZDoom's `my_way_home` in new colours.

Rooms and corridors are the scenario's. Its textures are fine-grained and made for far larger
pictures; here every room has a colour and a large motif of its own, drawn by this module, so that
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
    """A motif, the colour behind it and its own, 0..255: both of the engine's palette."""

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
    return _soft(np.abs(_grid()[1] % 64 - 32) - 15)


def _bands() -> Texture:
    return _soft(np.abs(_grid()[0] % 64 - 28) - 13)


def _panels() -> Texture:
    row, column = _grid()
    return _soft(np.maximum(np.abs(row - 58) - 44, np.abs(column - 64) - 50))


def _discs() -> Texture:
    row, column = _grid()
    return _soft(np.hypot(row - 58, column - 64) - 40)


def _diamonds() -> Texture:
    row, column = _grid()
    return _soft(np.abs(row - 58) + np.abs(column - 64) - 54)


def _chequers() -> Texture:
    row, column = _grid()
    return _soft(16 * np.sin(row * np.pi / 64) * np.sin(column * np.pi / 64))


def _arches() -> Texture:
    row, column = _grid()
    aside = column - 64
    return _soft(np.where(row < 58, np.hypot(row - 58, aside), np.abs(aside)) - 40)


def _zigzags() -> Texture:
    row, column = _grid()
    return _soft(np.abs((row + np.abs(column - 64)) % 128 - 90) - 24)


def _blocks() -> Texture:
    row, column = _grid()
    shifted = (column + 64 * (row // 64)) % 128
    return _soft(np.maximum(np.abs(row % 64 - 32) - 29, np.abs(shifted - 64) - 61))


_WALLS = {
    "BIGDOOR2": Design(_stripes, (103, 11, 11), (151, 47, 47)),
    "CEIL4_2": Design(_panels, (0, 0, 131), (0, 0, 203)),
    "CRATE2": Design(_diamonds, (119, 79, 43), (171, 111, 67)),
    "COMP01": Design(_discs, (47, 99, 35), (67, 147, 55)),
    "TLITE6_1": Design(_arches, (199, 199, 199), (151, 151, 151)),
    "FLOOR1_6": Design(_chequers, (175, 67, 0), (243, 115, 23)),
    "SILVER2": Design(_zigzags, (175, 71, 71), (223, 135, 135)),
    "SFALL2": Design(_bands, (55, 55, 55), (91, 91, 91)),
    "BIGBRIK1": Design(_blocks, (95, 75, 55), (123, 99, 79)),
}
"""The scenario's wall textures, each with the motif, ground and figure that take its place."""
_FLOOR = Design(_chequers, (71, 51, 35), (87, 67, 51))
_CEILING = Design(_panels, (59, 59, 59), (71, 71, 71))


def _draw(design: Design, skirting: bool) -> bytes:
    """The texture as a PNG file, with or without a dark skirting board."""
    share = design.motif()[..., None]
    ground, figure = (np.array(each, np.float32) for each in (design.ground, design.figure))
    picture = share * figure + (1 - share) * ground
    if skirting:
        row = _grid()[0][..., None]
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
