"""A recording: frames kept on disk while it runs, then an MP4 and the script that replays it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from glassworld.engine.actions.track import Action
from glassworld.engine.media.video import VideoWriter

Frames = npt.NDArray[np.uint8]
Held = tuple[Action, int]
"""An action and the number of pixel frames it was held for."""

MOST_BYTES = 2**30
"""Of raw frames in a recording: 80 minutes of a small world, 2 of the released one."""

_CHUNK = 32  # frames at a time from disk to video


class Recording:
    """Frames from `first` on. Raw, so that rewinding can cut them off again."""

    def __init__(self, first: int) -> None:
        self.first, self.count = first, 0
        self._shape: tuple[int, ...] = ()
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the recording

    def write(self, frames: Frames) -> bool:
        """Append `frames`; False, and nothing written, when the recording is full."""
        if self._file.tell() + frames.nbytes > MOST_BYTES:
            return False
        self._shape = frames.shape[1:]
        self._file.write(frames.tobytes())
        self.count += len(frames)
        return True

    def cut(self, frame: int) -> None:
        """Forget frame `frame` of the walk and all after it."""
        kept = max(0, frame - self.first)
        if kept < self.count:
            self._file.truncate(kept * int(np.prod(self._shape)))
            self._file.seek(0, 2)
            self.count = kept
        self.first = min(self.first, frame)

    def develop(self, path: Path, frame_rate: float) -> None:
        """Write what is there as an MP4 and close the film."""
        self._file.seek(0)
        size = int(np.prod(self._shape))
        with VideoWriter(path, frame_rate) as video:
            while data := self._file.read(size * _CHUNK):
                video.write(np.frombuffer(data, np.uint8).reshape(-1, *self._shape))
        self.close()

    def close(self) -> None:
        self._file.close()


def script(mode: str, seed: int, picture: str, held: Sequence[Held], first: int) -> str:
    """The action script of a walk: an action file that also says where and how it began.

    A free session draws its noise block by block, so `noise` is "blocks". `first_frame` is the
    frame of the walk that the recording begins at.
    """
    rows = [action for action, frames in held for _ in range(frames)]
    content: dict[str, object] = {
        "mode": mode,
        "seed": seed,
        "noise": "blocks",
        "picture": picture,
        "first_frame": first,
        "keyboard": [row.keyboard for row in rows],
    }
    if any(row.mouse is not None for row in rows):
        content["mouse"] = [row.mouse or (0.0, 0.0) for row in rows]
    return json.dumps(content)
