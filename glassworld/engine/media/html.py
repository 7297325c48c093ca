"""Frames and facts as HTML, for notebooks; everything is inside the text, nothing is fetched."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Mapping
from html import escape
from pathlib import Path

from glassworld.engine.media.images import Frames
from glassworld.engine.media.video import write_video

MOST_FRAMES = 720  # in one notebook cell: a minute at 12 frames per second
LEAST_WIDTH = 384  # pixels on the screen: small worlds are enlarged


def video_html(frames: Frames, frame_rate: float) -> str:
    """Return a `<video>` of `frames` (uint8 [N, H, W, 3]), or of the first `MOST_FRAMES`."""
    shown = frames[:MOST_FRAMES]
    if not len(shown):
        return "<p>No frames.</p>"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rollout.mp4"
        write_video(path, shown, frame_rate)
        data = base64.b64encode(path.read_bytes()).decode("ascii")
    width = max(shown.shape[2], LEAST_WIDTH)
    left_out = len(frames) - len(shown)
    note = f"<p>The last {left_out} frames are not shown.</p>" if left_out else ""
    return (
        f'<video controls loop muted autoplay width="{width}" style="image-rendering: pixelated" '
        f'src="data:video/mp4;base64,{data}"></video>{note}'
    )


def card_html(title: str, facts: Mapping[str, str], note: str = "") -> str:
    """Return a table of facts under a title."""
    rows = "".join(
        f'<tr><th style="text-align: left">{escape(name)}</th>'
        f'<td style="text-align: left">{escape(value)}</td></tr>'
        for name, value in facts.items()
    )
    remark = f"<p>{escape(note)}</p>" if note else ""
    return f"<div><strong>{escape(title)}</strong><table>{rows}</table>{remark}</div>"
