"""Context of a section of `glassworld bench gpu`: what it measures and where it reports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from glassworld.bench.section_runner import Figures, Report
from glassworld.engine.world import World


@dataclass(frozen=True)
class BenchContext:
    """A world to measure, and the figures and lines of a section while it is running.

    `build_world` returns a new world with the same weights at every call.
    """

    build_world: Callable[[], World]
    load_arguments: dict[str, Any]  # of `load_world`, for processes of their own
    blocks: int
    folder: Path
    save: Callable[[Figures], None] = lambda figures: None  # gets the figures so far
    report: Report = lambda line: None  # gets a line for each finished row

    @property
    def start_image(self) -> Image.Image:
        """A gray image of the released size."""
        return Image.new("RGB", (640, 352), (128, 128, 128))


def error_row(error: Exception) -> Figures:
    """Return the row of a measurement that failed, so that the others can go on."""
    return {"error": f"{type(error).__name__}: {error}"}
