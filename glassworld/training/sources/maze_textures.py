"""The textures of the maze: ViZDoom's level `my_way_home` in new colors.

Rooms and corridors stay as they are. The original textures are too fine for small images. Here
every room has its own color and a large motif, drawn by this module, so that an image 96 pixels
wide shows which room it is. The vest, which would end an episode, is removed.
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
"""Side of a texture in pixels, one per map unit. Walls have the same height."""
_VEST, _MAP_SPOT = b"type = 2018;", b"type = 9001;"
_Lump = tuple[bytes, bytes]
Color = tuple[int, int, int]


class TextureDesign(NamedTuple):
    """A motif, its background color and its own color, 0..255.

    Both colors are entries of the engine's palette, so that distant walls keep their color.
    """

    motif: Callable[[], Texture]
    background: Color
    foreground: Color


def _grid() -> tuple[Texture, Texture]:
    row, column = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    return row, column


def _soft(distance: Texture) -> Texture:
    """Return 1 where the distance is negative, 0 where positive, with a ramp of 3 pixels."""
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


def _checkers() -> Texture:
    row, column = _grid()
    return _soft(16 * np.sin(row * np.pi / 64) * np.sin(column * np.pi / 64))


def _arches() -> Texture:
    row, column = _grid()
    offset = column - 64
    return _soft(np.where(row < 58, np.hypot(row - 58, offset), np.abs(offset)) - 40)


def _zigzags() -> Texture:
    row, column = _grid()
    return _soft(np.abs((row + np.abs(column - 64)) % 128 - 90) - 24)


def _blocks() -> Texture:
    row, column = _grid()
    shifted = (column + 64 * (row // 64)) % 128
    return _soft(np.maximum(np.abs(row % 64 - 32) - 29, np.abs(shifted - 64) - 61))


_WALLS = {
    "BIGDOOR2": TextureDesign(_stripes, (103, 11, 11), (151, 47, 47)),
    "CEIL4_2": TextureDesign(_panels, (0, 0, 131), (0, 0, 203)),
    "CRATE2": TextureDesign(_diamonds, (119, 79, 43), (171, 111, 67)),
    "COMP01": TextureDesign(_discs, (47, 99, 35), (67, 147, 55)),
    "TLITE6_1": TextureDesign(_arches, (199, 199, 199), (151, 151, 151)),
    "FLOOR1_6": TextureDesign(_checkers, (175, 67, 0), (243, 115, 23)),
    "SILVER2": TextureDesign(_zigzags, (175, 71, 71), (223, 135, 135)),
    "SFALL2": TextureDesign(_bands, (55, 55, 55), (91, 91, 91)),
    "BIGBRIK1": TextureDesign(_blocks, (95, 75, 55), (123, 99, 79)),
}
"""The wall textures of the scenario, each with its replacement."""
_FLOOR = TextureDesign(_checkers, (71, 51, 35), (87, 67, 51))
_CEILING = TextureDesign(_panels, (59, 59, 59), (71, 71, 71))


def _draw(design: TextureDesign, skirting: bool) -> bytes:
    """Draw a texture as a PNG file, with or without a dark skirting board."""
    share = design.motif()[..., None]
    background = np.array(design.background, np.float32)
    foreground = np.array(design.foreground, np.float32)
    image = share * foreground + (1 - share) * background
    if skirting:
        row = _grid()[0][..., None]
        image *= 1 - 0.6 * _soft(116 - row)
    file = io.BytesIO()
    Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def repaint(original: bytes) -> bytes:
    """Return the WAD file of the scenario with new textures and without the vest."""
    lumps = [
        (name, _replace_textures(data) if name == b"TEXTMAP" else data)
        for name, data in _read_lumps(original)
    ]
    textures = [(_new_name(name), _draw(design, True)) for name, design in _WALLS.items()]
    textures += [(b"GWFLOOR", _draw(_FLOOR, False)), (b"GWCEIL", _draw(_CEILING, False))]
    return _write_lumps([*lumps, (b"TX_START", b""), *textures, (b"TX_END", b"")])


def _new_name(texture: str) -> bytes:
    return f"GWALL{list(_WALLS).index(texture)}".encode()


def _replace_textures(level: bytes) -> bytes:
    for name in _WALLS:
        level = level.replace(
            f'texturemiddle = "{name}"'.encode(), b'texturemiddle = "' + _new_name(name) + b'"'
        )
    level = re.sub(rb'texturefloor = "\w+"', b'texturefloor = "GWFLOOR"', level)
    level = re.sub(rb'textureceiling = "\w+"', b'textureceiling = "GWCEIL"', level)
    return level.replace(_VEST, _MAP_SPOT)


def _read_lumps(wad: bytes) -> list[_Lump]:
    _, count, directory = struct.unpack_from("<4sii", wad)
    entries = [struct.unpack_from("<ii8s", wad, directory + 16 * index) for index in range(count)]
    return [(name.rstrip(b"\0"), wad[start : start + size]) for start, size, name in entries]


def _write_lumps(lumps: list[_Lump]) -> bytes:
    body, directory, start = b"", b"", 12
    for name, data in lumps:
        directory += struct.pack("<ii8s", start + len(body), len(data), name)
        body += data
    return struct.pack("<4sii", b"PWAD", len(lumps), start + len(body)) + body + directory
