"""The keys and the mouse, drawn onto the video as the player held them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from glassworld.engine.actions.track import ActionSpace, ActionTrack
from glassworld.engine.media.images import Frames
from glassworld.engine.variants.variant import CAMERA_STEP

KEYBOARD = ("qwe", "asd", "zxc")
"""Where the keys lie under the left hand; only those a mode uses are drawn."""

SMOOTH = 4
"""Panels are drawn this many times larger and scaled down, for soft edges."""

DARK, LIGHT, ACCENT = (16, 18, 24), (255, 255, 255), (255, 190, 60)


def draw_keys(frames: Frames, track: ActionTrack, space: ActionSpace) -> Frames:
    """Return a copy of `frames` (uint8 [N, H, W, 3]) with each frame's keys and mouse drawn on.

    Pressed keys are lit, bottom left; where the mouse turns a camera both ways, a dial bottom
    right shows it. Sizes follow the frame's. Raises `ActionError` if `track` has too few rows.
    """
    track = track.fitted(space, len(frames))
    drawn = frames.copy()
    rows = track.keyboard
    if track.mouse is not None:
        rows = np.concatenate([track.keyboard, track.mouse], axis=1)
    distinct, which = np.unique(rows, axis=0, return_inverse=True)
    height, width = frames.shape[1:3]
    for index, row in enumerate(distinct):
        chosen = np.flatnonzero(which.reshape(-1) == index)
        keyboard, mouse = row[: len(space.keyboard)], row[len(space.keyboard) :]
        for panel, top, left in _panels(space, keyboard, mouse, (height, width)):
            _blend(drawn, chosen, panel, (top, left))
    return drawn


def _panels(
    space: ActionSpace,
    keyboard: npt.NDArray[np.float32],
    mouse: npt.NDArray[np.float32],
    size: tuple[int, int],
) -> Iterator[tuple[Image.Image, int, int]]:
    """Yield each panel with the row and column of its upper left corner."""
    height, width = size
    key = max(9, round(0.1 * min(height, 0.6 * width)))
    margin = max(2, key // 3)
    turns_both_ways = any(control.mouse[0] for control in space.controls)
    lit = {
        control.key: space.strength(control, keyboard, mouse)
        for control in space.controls
        if (control.column and control.column != space.idle)
        or (any(control.mouse) and not turns_both_ways)
    }
    panel = _keys_panel(lit, key)
    yield panel, height - margin - panel.height, margin
    if turns_both_ways:
        panel = _dial_panel(float(mouse[0]), float(mouse[1]), 2 * key)
        yield panel, height - margin - panel.height, width - margin - panel.width


def _keys_panel(lit: dict[str, float], key: int) -> Image.Image:
    rows = [row for row in KEYBOARD if any(letter in lit for letter in row)]
    cell = key * SMOOTH
    canvas = Image.new("RGBA", (cell * len(rows[0]), cell * len(rows)), (*DARK, 0))
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=0.62 * cell)
    for y, row in enumerate(rows):
        for x, letter in enumerate(row):
            if letter in lit:
                _keycap(draw, (x * cell, y * cell), cell, letter.upper(), lit[letter], font)
    return canvas.resize((key * len(rows[0]), key * len(rows)), Image.Resampling.BOX)


def _keycap(
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    cell: int,
    letter: str,
    pressed: float,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    x, y = corner
    gap = cell * 0.05
    fill = _mix((*DARK, 150), (*ACCENT, 240), pressed)
    edge = _mix((*LIGHT, 110), (*LIGHT, 255), pressed)
    ink = _mix((*LIGHT, 225), (*DARK, 255), pressed)
    box = (x + gap, y + gap, x + cell - gap, y + cell - gap)
    draw.rounded_rectangle(box, cell * 0.2, fill, edge, max(1, round(cell * 0.045)))
    draw.text((x + cell / 2, y + cell / 2), letter, fill=ink, font=font, anchor="mm")


def _dial_panel(vertical: float, horizontal: float, size: int) -> Image.Image:
    """Draw a dial whose knob leans where the camera turns; up is positive."""
    side = size * SMOOTH
    canvas = Image.new("RGBA", (side, side), (*DARK, 0))
    draw = ImageDraw.Draw(canvas)
    center, travel, line = side / 2, side * 0.26, max(1, round(side * 0.022))
    draw.ellipse(_round(center, center, side * 0.48), (*DARK, 150), (*LIGHT, 110), line)
    for sign_x, sign_y in ((0, -1), (0, 1), (-1, 0), (1, 0)):
        tick = (center + sign_x * side * 0.40, center + sign_y * side * 0.40)
        draw.ellipse(_round(*tick, side * 0.022), (*LIGHT, 150))
    lean_x = min(max(horizontal / CAMERA_STEP, -1.0), 1.0)
    lean_y = min(max(vertical / CAMERA_STEP, -1.0), 1.0)
    x, y = center + lean_x * travel, center - lean_y * travel
    pushed = max(abs(lean_x), abs(lean_y))
    color = _mix((*LIGHT, 170), (*ACCENT, 250), pushed)
    draw.line((center, center, x, y), color, 2 * line)
    draw.ellipse(_round(x, y, side * (0.1 + 0.05 * pushed)), color)
    return canvas.resize((size, size), Image.Resampling.BOX)


def _round(x: float, y: float, radius: float) -> tuple[float, float, float, float]:
    return x - radius, y - radius, x + radius, y + radius


def _mix(rest: tuple[int, ...], full: tuple[int, ...], share: float) -> tuple[int, ...]:
    return tuple(round(a + (b - a) * share) for a, b in zip(rest, full, strict=True))


def _blend(
    frames: Frames, chosen: npt.NDArray[np.intp], panel: Image.Image, corner: tuple[int, int]
) -> None:
    """Lay `panel` over the `chosen` frames at (row, column), cut off at the frame's edges."""
    top, left = max(0, corner[0]), max(0, corner[1])
    bottom = min(top + panel.height, frames.shape[1])
    right = min(left + panel.width, frames.shape[2])
    pixels = np.asarray(panel, np.float32)[: bottom - top, : right - left]
    color, opacity = pixels[..., :3], pixels[..., 3:] / 255
    below = frames[chosen, top:bottom, left:right]
    frames[chosen, top:bottom, left:right] = (below * (1 - opacity) + color * opacity + 0.5).astype(
        np.uint8
    )
