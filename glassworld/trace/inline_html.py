"""A table and an icicle chart as HTML for notebooks: plain text in, text out, nothing fetched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, ROW_HEIGHT = 760, 22  # pixels of the chart
LEAST_WIDTH = 1.0  # of a box that is drawn
LETTER_WIDTH = 6.5  # about, to know what fits into a box


@dataclass(frozen=True)
class IcicleBox:
    """One box of the chart: its label, where it lies in, its time and its color.

    `parent` is the position of an earlier box, -1 at the root.
    """

    label: str
    parent: int
    ms: float
    color: str


def icicle_html(boxes: Sequence[IcicleBox]) -> str:
    """Return an SVG in which a box is as wide as its time, below the one that it lies in."""
    total = sum(box.ms for box in boxes if box.parent < 0)
    if total <= 0:
        return ""
    left, depth = [0.0] * len(boxes), [0] * len(boxes)
    filled = [0.0] * len(boxes)  # by the boxes inside, in pixels from the left edge
    root_end, drawn = 0.0, []
    for i, box in enumerate(boxes):
        width = box.ms / total * WIDTH
        if box.parent < 0:
            left[i], root_end = root_end, root_end + width
        else:
            left[i] = left[box.parent] + filled[box.parent]
            depth[i] = depth[box.parent] + 1
            filled[box.parent] += width
        if width >= LEAST_WIDTH:
            drawn.append(_box(box, left[i], depth[i], width))
    height = (max(depth) + 1) * ROW_HEIGHT
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'role="img" aria-label="Time of each tag" font-family="sans-serif" font-size="11">'
        f"{''.join(drawn)}</svg>"
    )


def _box(box: IcicleBox, left: float, depth: int, width: float) -> str:
    top, title = depth * ROW_HEIGHT, escape(f"{box.label}: {box.ms:.1f} ms")
    letters = int((width - 6) / LETTER_WIDTH)
    label = box.label if len(box.label) <= letters else box.label[: max(letters - 1, 0)] + "…"
    text = (
        f'<text x="{left + 3:.1f}" y="{top + 15}" fill="#fff">{escape(label)}</text>'
        if letters >= 4
        else ""
    )
    return (
        f'<g><title>{title}</title><rect x="{left:.1f}" y="{top}" width="{width:.1f}" '
        f'height="{ROW_HEIGHT - 1}" fill="{box.color}" stroke="#fff" stroke-width="0.5"/>{text}</g>'
    )


def table_html(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table whose first column is text and whose others are numbers."""

    def line(cells: Sequence[str], kind: str) -> str:
        sides = ["left", *["right"] * (len(cells) - 1)]
        return "".join(
            f'<{kind} style="text-align: {side}">{escape(cell)}</{kind}>'
            for cell, side in zip(cells, sides, strict=True)
        )

    body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    return f"<table><tr>{line(head, 'th')}</tr>{body}</table>"
