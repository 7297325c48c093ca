"""Record frames on disk, then write them as an MP4 with the script that replays them."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from glassworld.engine.actions.track import Action
from glassworld.engine.checkpoint.locate import PATHS, embedded_worlds
from glassworld.engine.checkpoint.options import LoadOptions
from glassworld.engine.media.video import VideoWriter
from glassworld.errors import InputError
from glassworld.files import disk_is_full
from glassworld.load_flags import as_flags
from glassworld.play.images import StartImage

Frames = npt.NDArray[np.uint8]

VIDEO_NAME, ACTIONS_NAME, IMAGE_NAME = "walk.mp4", "walk.json", "picture.png"
"""Names of the files that a recording consists of."""

MAX_RECORDING_BYTES = 2**30
"""Raw frames of one recording: 80 minutes of a small world, 2 of the released one."""

CANCELLED = "the server has ended"

_CHUNK_FRAMES = 32  # read at a time from disk


class HeldAction(NamedTuple):
    """An action and the number of pixel frames that it was held for."""

    action: Action
    frames: int


class Recording:
    """Raw frames from `first_frame` of a session on, so that a rewind can cut them off again."""

    def __init__(self, first_frame: int) -> None:
        self.first_frame, self.frame_count = first_frame, 0
        self._lock = threading.Lock()
        self._being_written = self._cancelled = False
        self._shape: tuple[int, ...] = ()
        # Unbuffered, so that a full disk fails the write itself and nothing later.
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed by `close`

    def write(self, frames: Frames) -> bool:
        """Append `frames`; return False and write nothing if the recording is full.

        Raises `OSError`, and keeps the earlier frames, if the disk does not take them.
        """
        end = self._file.tell()
        if end + frames.nbytes > MAX_RECORDING_BYTES:
            return False
        self._shape = frames.shape[1:]
        rest = memoryview(frames.tobytes())
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            self._file.truncate(end)
            self._file.seek(end)
            raise
        self.frame_count += len(frames)
        return True

    def truncate(self, frame: int) -> None:
        """Remove frame `frame` of the session and all later ones."""
        remaining = max(0, frame - self.first_frame)
        if remaining < self.frame_count:
            self._file.truncate(remaining * int(np.prod(self._shape)))
            self._file.seek(0, 2)
            self.frame_count = remaining
        self.first_frame = min(self.first_frame, frame)

    def write_video(self, path: Path, frame_rate: float) -> None:
        """Write the frames as an MP4 and close the recording.

        Raises `InputError` if it is cancelled.
        """
        with self._lock:
            if self._cancelled:
                raise InputError(CANCELLED)
            self._being_written = True
        size = int(np.prod(self._shape))
        try:
            self._file.seek(0)
            with VideoWriter(path, frame_rate) as video:
                while data := self._read(size * _CHUNK_FRAMES):
                    if self._cancelled:
                        raise InputError(CANCELLED)
                    video.write(np.frombuffer(data, np.uint8).reshape(-1, *self._shape))
        finally:
            self.close()

    def _read(self, size: int) -> bytes:
        """Read `size` bytes, fewer only at the end."""
        data = bytearray()
        while len(data) < size and (piece := self._file.read(size - len(data))):
            data += piece
        return bytes(data)

    def cancel(self) -> None:
        """Delete the frames; a video that another thread is writing ends early."""
        with self._lock:
            self._cancelled = True
            if not self._being_written:
                self.close()

    def close(self) -> None:
        """Delete the frames on disk."""
        self._file.close()


def write_failure(error: Exception) -> str:
    """Return for players why a file could not be written, without the server's paths."""
    if disk_is_full(error):
        return "the server's disk is full"
    cause = error.__cause__ or error
    if isinstance(cause, InputError):
        return str(cause)
    return (isinstance(cause, OSError) and cause.strerror) or type(cause).__name__


class EmptyRecordingError(InputError):
    """A recording ended before its first block."""


class FinishedRecording(NamedTuple):
    """A stopped recording and what its replay needs."""

    recording: Recording
    script: str
    start_image: StartImage


def action_script(mode: str, seed: int, held: Sequence[HeldAction], first_frame: int) -> str:
    """Return the action file (JSON) of a session, extended by what its replay needs.

    A live session draws its noise block by block, so `noise` is "blocks". `first_frame` is the
    frame of the session that the recording starts at.
    """
    rows = [action for action, frames in held for _ in range(frames)]
    content: dict[str, object] = {
        "mode": mode,
        "seed": seed,
        "noise": "blocks",
        "picture": IMAGE_NAME,
        "first_frame": first_frame,
        "keyboard": [row.keyboard for row in rows],
    }
    if any(row.mouse is not None for row in rows):
        content["mouse"] = [row.mouse or (0.0, 0.0) for row in rows]
    return json.dumps(content)


def replay_command(load: LoadOptions, show_paths: bool) -> str:
    """Return the command that replays a recording, run where its files are.

    `load`: how the server loaded the world. `show_paths`: whether players may see its paths, which
    are of use on this machine only; the others get a name to replace.
    """
    places: dict[str, str] = {}
    for name in ("world", *PATHS, "tiny_decoder"):
        value = str(getattr(load, name) or "")
        if not value or not Path(value).exists() or value in embedded_worlds():
            continue  # a name that is the same on every machine
        path = Path(value).resolve()
        places[name] = str(path) if show_paths else f"PATH/TO/{path.name}"
    flags = as_flags(replace(load, **places))  # type: ignore[arg-type]
    files = ["--actions", ACTIONS_NAME, "--img-path", IMAGE_NAME]
    words = ["glassworld", "generate", *flags, *files]
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)
