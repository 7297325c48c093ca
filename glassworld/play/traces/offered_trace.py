"""Offer a trace and its report for download."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from glassworld.play.downloads import DownloadStore, write_in_thread

TRACE_NAME, REPORT_NAME = "trace.json.gz", "report.html"


class OfferedTrace(NamedTuple):
    """The URL paths of a trace and of its report, which is None if making it failed."""

    trace: str
    report: str | None


async def offer_trace(
    downloads: DownloadStore, trace: Path, write: Callable[[], None]
) -> OfferedTrace:
    """Write `trace` by `write` in a thread, make its report and offer both.

    Raises what `write` raises; then nothing stays.
    """
    report = downloads.new_path(REPORT_NAME)
    await write_in_thread(write, trace)
    try:
        await _write_report(trace, report)
    except BaseException:
        for path in (trace, report):
            path.unlink(missing_ok=True)
        raise
    report_url = None
    if report.is_file():
        report_url = downloads.offer(report, REPORT_NAME, "text/html")
    return OfferedTrace(downloads.offer(trace, TRACE_NAME, "application/gzip"), report_url)


async def _write_report(trace: Path, report: Path) -> None:
    """Make the report of a trace in another process, at low priority where there is `nice`.

    Parsing a large trace takes minutes of pure Python, which would delay the frames.
    """
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
