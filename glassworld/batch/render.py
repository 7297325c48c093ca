"""Render one job: load its world, generate, and write the video."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from glassworld.batch.jobs import PreparedJob, options_for
from glassworld.engine.checkpoint.load import load_from
from glassworld.engine.checkpoint.options import LoadOptions
from glassworld.engine.media.video import VideoWriter
from glassworld.engine.runtime.threads import fixed_threads
from glassworld.engine.world import World
from glassworld.errors import InputError
from glassworld.files import disk_is_full

State = Literal["done", "failed", "pending"]


class JobResult(msgspec.Struct, frozen=True):
    """What became of a job: a row of the index."""

    id: str
    line: int
    state: State  # "pending" with an error: not the job's, and the others would meet it too
    seconds: float = 0.0  # to generate and write the video, without loading the world
    pixel_frames: int = 0
    error: str = ""
    finished: str = ""  # time, ISO 8601, UTC


class StoppedError(Exception):
    """The run was stopped while a job was rendered; nothing of the job is kept."""


class Renderer:
    """Renders jobs one after another; keeps the world of the last one.

    Torch and the encoder compute with a fixed number of threads, so that a video does not depend
    on how many renderers there are: numbers are rounded by how the threads share them.
    """

    def __init__(self, load: LoadOptions, folder: Path, threads: int) -> None:
        self._load, self._folder, self._threads = load, folder, threads
        self._worlds: dict[str | None, World] = {}

    def render(self, job: PreparedJob, stopped: Callable[[], bool] = lambda: False) -> JobResult:
        """Render a job; a failure of any kind is its result. After a full disk it is still pending.

        Raises `StoppedError` once `stopped` returns True between two blocks.
        """
        began = time.perf_counter()
        try:
            with fixed_threads(self._threads):
                world = self._world(job.world)
                began = time.perf_counter()
                frames = self._write_video(job, world, stopped)
        except StoppedError:
            raise
        except Exception as error:  # of one job: the others go on
            state: State = "pending" if disk_is_full(error) else "failed"
            return self._result(job, state, began, error=_one_line(error))
        return self._result(job, "done", began, pixel_frames=frames)

    def _result(
        self, job: PreparedJob, state: State, began: float, pixel_frames: int = 0, error: str = ""
    ) -> JobResult:
        seconds = time.perf_counter() - began
        finished = datetime.now(UTC).isoformat(timespec="seconds")
        return JobResult(job.id, job.line, state, seconds, pixel_frames, error, finished)

    def _world(self, name: str | None) -> World:
        if name not in self._worlds:
            self._worlds.clear()  # first: two may not fit
            self._worlds[name] = load_from(options_for(name, self._load))
        return self._worlds[name]

    def _write_video(self, job: PreparedJob, world: World, stopped: Callable[[], bool]) -> int:
        """Write a job's video block by block, whole or not at all; return its pixel frames."""
        count = 0
        reports = world.stream(job.image, job.frames, job.seed, job.actions, noise=job.noise)
        path = self._folder / job.video
        rate = world.spec.frame_rate
        with closing(reports), VideoWriter(path, rate, threads=self._threads) as video:
            for report in reports:
                video.write(report.frames)
                count += len(report.frames)
                if stopped():
                    raise StoppedError
        return count


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or "no message"
    return text if isinstance(error, InputError) else f"{type(error).__name__}: {text}"
