"""What the sections of `scripts/gpu_check` are given, and what they give back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from glassworld.engine.world import World

Figures = dict[str, Any]


@dataclass(frozen=True)
class BenchContext:
    """What is measured: a world made anew for each section, from the same weights."""

    make: Callable[[], World]
    arguments: dict[str, Any]  # of `load_world`, for processes of their own
    blocks: int
    folder: Path
    keep: Callable[[Figures], None] = lambda figures: None  # hears what is there so far
    say: Callable[[str], None] = lambda line: None  # hears of each row as it is finished

    @property
    def picture(self) -> Image.Image:
        return Image.new("RGB", (640, 352), (128, 128, 128))


def reason(error: Exception) -> Figures:
    """The row of what failed: it must not hide the others."""
    return {"error": f"{type(error).__name__}: {error}"}
