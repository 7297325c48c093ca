"""Plots as SVG files, drawn here: a few lines and points do not need a plotting library."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

Point = tuple[float, float]

WIDTH, HEIGHT = 360, 250
LEFT, RIGHT, TOP, BOTTOM = 56, 14, 34, 44
LABEL_SIZE = (130, 11)  # pixels
INK, PALE, ACCENT = "#1f2933", "#d5dbe1", "#0b6e99"


@dataclass(frozen=True)
class Axis:
    """A linear or logarithmic map from data values to pixels of a panel."""

    low: float
    high: float
    first: float  # the pixel of `low`
    last: float
    logarithmic: bool = False

    def at(self, value: float) -> float:
        """Return the pixel of a value."""
        low, high = self.low, self.high
        if self.logarithmic:
            value, low, high = math.log10(value), math.log10(low), math.log10(high)
        return self.first + (self.last - self.first) * (value - low) / (high - low)

    def ticks(self) -> list[float]:
        """Return round values along the axis: powers of ten if it is logarithmic."""
        if self.logarithmic:
            powers = range(math.ceil(math.log10(self.low)), math.floor(math.log10(self.high)) + 1)
            return [10.0**power for power in powers]
        step = 10 ** math.floor(math.log10((self.high - self.low) / 2))
        if (self.high - self.low) / step > 5:
            step *= 2 if (self.high - self.low) / step <= 10 else 5
        first = math.ceil(self.low / step)
        return [step * index for index in range(first, math.floor(self.high / step) + 1)]


@dataclass
class Panel:
    """One chart: its grid and labels, and the lines and points added to it."""

    title: str
    x_label: str
    y_label: str
    x: Axis
    y: Axis

    def __post_init__(self) -> None:
        self.parts: list[str] = []
        for tick in self.x.ticks():
            at = self.x.at(tick)
            self._line(at, self.y.first, at, self.y.last, PALE)
            self.text(at, self.y.first + 14, f"{tick:g}", "middle")
        for tick in self.y.ticks():
            at = self.y.at(tick)
            self._line(self.x.first, at, self.x.last, at, PALE)
            self.text(self.x.first - 5, at + 3, f"{tick:g}", "end")
        middle = (self.x.first + self.x.last) / 2
        self.text(self.x.first, self.y.last - 14, self.title, "start", bold=True)
        self.text(middle, self.y.first + 32, self.x_label, "middle")
        self.text(self.x.first, self.y.last - 3, self.y_label, "start")

    def curve(self, points: list[Point], color: str = ACCENT) -> None:
        """Add a line through points."""
        path = " ".join(f"{self.x.at(x):.1f},{self.y.at(y):.1f}" for x, y in points)
        self.parts.append(
            f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.5"/>'
        )

    def dots(self, points: list[Point]) -> None:
        """Add a dot at every point."""
        for x, y in points:
            self.parts.append(
                f'<circle cx="{self.x.at(x):.1f}" cy="{self.y.at(y):.1f}" r="3" fill="{ACCENT}"/>'
            )

    def text(self, x: float, y: float, words: str, anchor: str, bold: bool = False) -> None:
        """Add text at a pixel; `anchor` as in SVG: start, middle or end."""
        weight = ' font-weight="bold"' if bold else ""
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{weight}>{escape(words)}</text>'
        )

    def _line(self, x1: float, y1: float, x2: float, y2: float, color: str) -> None:
        self.parts.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}"/>'
        )


def svg(panels: list[Panel], columns: int, width: int = WIDTH, height: int = HEIGHT) -> str:
    """Arrange panels in a grid, row by row."""
    rows = math.ceil(len(panels) / columns)
    drawn = [
        f'<g transform="translate({width * (index % columns)},{height * (index // columns)})">'
        + "\n".join(panel.parts)
        + "</g>"
        for index, panel in enumerate(panels)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width * columns} {height * rows}" '
        f'font-family="sans-serif" font-size="10" fill="{INK}">\n'
        '<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(drawn) + "\n</svg>\n"
    )


def scaling_plot(curves: dict[str, list[Point]]) -> str:
    """Draw the milliseconds of a block against each axis, all from zero."""
    panels = []
    for axis, points in curves.items():
        xs, ys = zip(*points, strict=True)
        panel = Panel(
            f"block time against {axis}",
            axis,
            "ms",
            Axis(0, max(xs) * 1.05, LEFT, WIDTH - RIGHT),
            Axis(0, max(ys) * 1.1, HEIGHT - BOTTOM, TOP),
        )
        panel.curve(points)
        panel.dots(points)
        panels.append(panel)
    return svg(panels, 2)


def roofline_plot(points: list[dict[str, Any]], peak_rates: dict[str, float]) -> str:
    """Draw the FLOP/s reached against FLOPs per byte, under the peak rates."""
    matmul, copy = peak_rates["matmul_gflops"], peak_rates["copy_gbps"]
    intensities = [point["intensity"] for point in points]
    reached = [point["gflops"] for point in points]
    width, height = 2 * WIDTH, 2 * HEIGHT
    x = Axis(min(*intensities, 1) / 2, max(intensities) * 6, LEFT, width - RIGHT, True)
    y = Axis(min(reached) / 3, matmul * 2, height - BOTTOM, TOP, True)
    panel = Panel("roofline: measured against peak rates", "FLOPs per byte", "GFLOP/s", x, y)
    corner, low = matmul / copy, max(x.low, y.low / copy)
    panel.curve([(low, low * copy), (corner, matmul), (x.high, matmul)], INK)
    panel.text(x.at(x.high) - 4, y.at(matmul) - 5, f"matmul: {matmul:,.0f} GFLOP/s", "end")
    panel.text(x.at(low) + 30, y.at(low * copy) - 4, f"copy: {copy:,.1f} GB/s", "start")
    panel.dots(list(zip(intensities, reached, strict=True)))
    positions = [(x.at(i) + 6, y.at(r) + 3) for i, r in zip(intensities, reached, strict=True)]
    for point, position in zip(points, _spread_labels(positions), strict=True):
        panel.text(*position, point["tag"].replace("_", " "), "start")
    return svg([panel], 1, width, height)


def _spread_labels(positions: list[Point]) -> list[Point]:
    """Move labels that would overlap down, below those above them."""
    moved: dict[int, Point] = {}
    for index in sorted(range(len(positions)), key=lambda index: positions[index][1]):
        x, y = positions[index]
        for other_x, other_y in sorted(moved.values(), key=lambda other: other[1]):
            if abs(x - other_x) < LABEL_SIZE[0] and abs(y - other_y) < LABEL_SIZE[1]:
                y = other_y + LABEL_SIZE[1]
        moved[index] = x, y
    return [moved[index] for index in range(len(positions))]
