"""The example that makes the README's moving picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from examples.animate import animate
from glassworld.engine.media.video import write_video


def test_animate_keeps_every_second_frame_in_the_time_of_the_video(tmp_path: Path) -> None:
    frames = np.zeros((24, 32, 48, 3), np.uint8)
    frames[:, :16] = np.arange(0, 240, 10)[:, None, None, None]
    write_video(tmp_path / "walk.mp4", frames, 12)
    size = animate(tmp_path / "walk.mp4", tmp_path / "walk.gif", width=96, every=2)
    assert size == (tmp_path / "walk.gif").stat().st_size
    with Image.open(tmp_path / "walk.gif") as image:
        assert image.size == (96, 64)
        assert getattr(image, "n_frames", 1) == 12
        assert 160 <= image.info["duration"] <= 170
