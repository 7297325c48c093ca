"""What a player takes home: a recording's files, a capture's report."""

from __future__ import annotations

import asyncio
import shutil
import sys
from pathlib import Path

from glassworld.play import protocol as wire
from glassworld.play.downloads import DownloadStore
from glassworld.play.live_session import RECORDED_PICTURE, FinishedRecording


def recorded(
    shelf: DownloadStore, tape: FinishedRecording, frame_rate: float
) -> wire.RecordingStatus:
    """Put the video, the script and the picture of a recording on the shelf."""
    frames = tape.film.count
    video, actions, picture = (
        shelf.place(name) for name in ("walk.mp4", "walk.json", RECORDED_PICTURE)
    )
    tape.film.develop(video, frame_rate)
    actions.write_text(tape.script, encoding="utf-8")
    picture.write_bytes(tape.picture.png())
    return wire.RecordingStatus(
        on=False,
        frames=frames,
        video=shelf.put(video, "walk.mp4", "video/mp4"),
        actions=shelf.put(actions, "walk.json", "application/json"),
        picture=shelf.put(picture, RECORDED_PICTURE, "image/png"),
    )


async def captured(shelf: DownloadStore, trace: Path) -> wire.Captured:
    """Put a trace and its report on the shelf.

    The report is made by another process, behind the blocks where the system has `nice`: reading
    a trace is minutes of pure Python for the largest, and would hold up the frames.
    """
    report = shelf.place("report.html")
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
    offered = shelf.put(report, "report.html", "text/html") if report.is_file() else None
    return wire.Captured(shelf.put(trace, "trace.json.gz", "application/gzip"), offered)
