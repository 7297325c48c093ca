"""Turn a video into a small animated image, for a README or a bug report.

glassworld generate --actions "w*36 w+left*24 w*36 w+right*24"
python examples/animate.py outputs/demo_icon.mp4 demo.gif
"""

from __future__ import annotations

import argparse
from pathlib import Path

import av
from PIL import Image

COLORS = 128


def animate(video: Path, output: Path, width: int, every: int) -> int:
    """Write every `every`-th frame, `width` pixels wide, in the video's time; return the bytes."""
    with av.open(str(video)) as container:
        rate = container.streams.video[0].average_rate
        frames = [frame.to_image() for frame in container.decode(video=0)][::every]
    height = round(width * frames[0].height / frames[0].width)
    larger = [frame.resize((width, height), Image.Resampling.LANCZOS) for frame in frames]
    palette = [frame.quantize(COLORS, dither=Image.Dither.NONE) for frame in larger]
    duration = round(1000 * every / float(rate or 12))
    palette[0].save(output, save_all=True, append_images=palette[1:], duration=duration, loop=0)
    return output.stat().st_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video", type=Path)
    parser.add_argument("output", type=Path, help="a .gif file")
    parser.add_argument("--width", type=int, default=384, help="width in pixels")
    parser.add_argument("--every", type=int, default=2, help="keep every n-th frame")
    options = parser.parse_args()
    size = animate(options.video, options.output, options.width, options.every)
    print(f"{options.output}: {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
