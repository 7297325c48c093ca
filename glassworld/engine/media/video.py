"""H.264 video: frames in, an MP4 out, whole or block by block."""

from __future__ import annotations

from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import numpy as np

from glassworld.engine.media.images import Frames
from glassworld.files import naming_full_disk, replacing

QUALITY = "17"
"""x264's constant rate factor: visually lossless, so that the video shows the model's faults."""

REPRODUCIBLE = "mbtree=0"
"""Parameters of x264. With AVX-512, its mbtree made other bytes of equal frames at times.

It depended on the videos before; held to AVX2 it did not happen. `test_batch_bytes.py` notices.
"""


class VideoWriter:
    """An MP4 written as the frames come: `with VideoWriter(path, fps) as video: video.write(...)`.

    The file appears when the `with` ends, playable; after an exception nothing is written.
    `threads`: those of the encoder, on whose number the file's bytes depend; as many as it likes
    by default.
    """

    def __init__(self, path: str | Path, fps: float, threads: int | None = None) -> None:
        self._path, self._threads = Path(path), threads
        self._fps = Fraction(fps).limit_denominator(1000)
        self._shape: tuple[int, ...] | None = None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            temporary = stack.enter_context(replacing(self._path))
            # Absolute: to FFmpeg, what a relative path has before a colon is a protocol.
            name = str(temporary.absolute())
            self._container = stack.enter_context(
                av.open(name, "w", options={"movflags": "+faststart"})
            )
            self._stack = stack.pop_all()
        return self

    def write(self, frames: Frames) -> None:
        """Append `frames`; all must have the size of the first. Any size from 2x2 up works."""
        if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8:
            raise ValueError(f"frames: uint8 [N,H,W,3], not {frames.dtype} {list(frames.shape)}")
        if self._shape is None:
            self._open_stream(frames.shape[1], frames.shape[2])
            self._shape = frames.shape[1:]
        elif frames.shape[1:] != self._shape:
            raise ValueError(f"frames: {frames.shape[1:]} after frames of {self._shape}")
        with naming_full_disk(self._path):  # here: it may be one of several files in progress
            for frame in _even(frames):
                encoded = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
                self._container.mux(self._stream.encode(encoded))

    def _open_stream(self, height: int, width: int) -> None:
        self._stream = self._container.add_stream("libx264", rate=self._fps)
        self._stream.height, self._stream.width = height + height % 2, width + width % 2
        self._stream.pix_fmt = "yuv420p"
        self._stream.options = {
            "crf": QUALITY,
            "preset": "veryfast",
            "x264-params": REPRODUCIBLE,
        }
        if self._threads is not None:
            self._stream.codec_context.thread_count = self._threads

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._stack as stack:
            if error is not None:
                stack.__exit__(kind, error, trace)
            elif self._shape is None:
                raise ValueError(f"{self._path}: a video needs at least one frame")
            else:
                self._container.mux(self._stream.encode(None))


def write_video(path: str | Path, frames: Frames, fps: float) -> None:
    """Write `frames` (uint8 [N, H, W, 3], N >= 1) as an H.264 MP4, whole or not at all."""
    with VideoWriter(path, fps) as video:
        video.write(frames)


def _even(frames: Frames) -> Frames:
    """Repeat the last row and column of odd sizes: the color planes are half as large."""
    rows, columns = frames.shape[1] % 2, frames.shape[2] % 2
    if not (rows or columns):
        return frames
    return np.pad(frames, ((0, 0), (0, rows), (0, columns), (0, 0)), mode="edge")
