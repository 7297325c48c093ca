"""Files for players to download, under URLs that nobody can guess."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from glassworld.play.protocol import CapturedMessage, RecordingMessage
from glassworld.play.recording import ACTIONS_NAME, IMAGE_NAME, VIDEO_NAME, FinishedRecording

MAX_FILES = 48
"""With more files than this, the oldest are deleted."""


class Download(NamedTuple):
    """A file that the server offers."""

    path: Path
    name: str  # to save it under
    media_type: str


class DownloadStore:
    """A temporary folder of files to download, deleted when the server ends.

    Clients name a file by its key, which is looked up in memory and never used as a path.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="glassworld-")
        self._downloads: dict[str, Download] = {}

    def new_path(self, name: str) -> Path:
        """Return an unused path in the folder that ends in `name`."""
        return Path(self._folder.name) / f"{secrets.token_hex(4)}-{name}"

    def offer(self, path: Path, name: str, media_type: str) -> str:
        """Offer the file at `path` and return its URL path."""
        key = secrets.token_urlsafe(18)
        self._downloads[key] = Download(path, name, media_type)
        while len(self._downloads) > MAX_FILES:
            oldest = next(iter(self._downloads))
            self._downloads.pop(oldest).path.unlink(missing_ok=True)
        return f"/files/{key}"

    def get(self, key: str) -> Download | None:
        """Return the file with this key, or None."""
        return self._downloads.get(key)

    def close(self) -> None:
        """Delete all files."""
        self._downloads.clear()
        self._folder.cleanup()


def offer_recording(
    downloads: DownloadStore, finished: FinishedRecording, frame_rate: float
) -> RecordingMessage:
    """Write the video, the action script and the start image of a recording, and offer them."""
    frames = finished.recording.frame_count
    video, actions, image = map(downloads.new_path, (VIDEO_NAME, ACTIONS_NAME, IMAGE_NAME))
    finished.recording.write_video(video, frame_rate)
    actions.write_text(finished.script, encoding="utf-8")
    image.write_bytes(finished.start_image.png())
    return RecordingMessage(
        on=False,
        frames=frames,
        video=downloads.offer(video, VIDEO_NAME, "video/mp4"),
        actions=downloads.offer(actions, ACTIONS_NAME, "application/json"),
        picture=downloads.offer(image, IMAGE_NAME, "image/png"),
    )


async def offer_capture(downloads: DownloadStore, trace: Path) -> CapturedMessage:
    """Make the report of a trace and offer both.

    Another process makes the report, at low priority where the system has `nice`: parsing a large
    trace takes minutes of pure Python, which would delay the frames.
    """
    report = downloads.new_path("report.html")
    command = [sys.executable, "-m", "glassworld", "trace", "report", str(trace)]
    command += ["--html", str(report)]
    if nice := shutil.which("nice"):
        command = [nice, *command]
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        *command, stdin=quiet, stdout=quiet, stderr=quiet
    )
    try:
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
    report_url = None
    if report.is_file():
        report_url = downloads.offer(report, "report.html", "text/html")
    return CapturedMessage(downloads.offer(trace, "trace.json.gz", "application/gzip"), report_url)
