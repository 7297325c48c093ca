"""The index of a batch: one Parquet file beside the videos, with a row for every job."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from glassworld.batch.jobs import PreparedJob
from glassworld.batch.render import JobResult
from glassworld.errors import InputError, MissingExtraError
from glassworld.files import replacing

try:
    import pyarrow
    import pyarrow.parquet as parquet
except ModuleNotFoundError:
    raise MissingExtraError("pyarrow, which writes a batch's index,", "batch") from None

INDEX = "index.parquet"

SAVE_SECONDS = 2.0
"""How often the index is written at most: what a killed run may have to do again."""

SAVE_SHARE = 0.05
"""Share of the time that writing it may take."""

SCHEMA = pyarrow.schema(
    [
        ("id", pyarrow.string()),
        ("line", pyarrow.int64()),
        ("state", pyarrow.string()),
        ("video", pyarrow.string()),
        ("seconds", pyarrow.float64()),
        ("pixel_frames", pyarrow.int64()),
        ("error", pyarrow.string()),
        ("finished", pyarrow.string()),
        ("image", pyarrow.string()),
        ("world", pyarrow.string()),
        ("frames", pyarrow.int64()),
        ("seed", pyarrow.int64()),
        ("digest", pyarrow.string()),
    ]
)
"""`state` is done, failed or pending; `frames` are latent frames; `digest` is that of the job."""


class BatchIndex:
    """The results of the jobs so far; a job is done if its video is there and is the job's own."""

    def __init__(self, folder: Path, jobs: Sequence[PreparedJob]) -> None:
        self._path = folder / INDEX
        self._jobs = {job.id: job for job in jobs}
        self._results = {job.id: JobResult(job.id, job.line, "pending") for job in jobs}
        self._next_save = 0.0
        for row in _read(self._path):
            job = self._jobs.get(row["id"])
            done = row["state"] == "done" and job is not None and row["digest"] == job.digest
            if done and job is not None and (folder / job.video).is_file():
                fields = {name: row[name] for name in JobResult.__struct_fields__}
                self._results[job.id] = JobResult(**{**fields, "line": job.line})

    def missing(self) -> list[PreparedJob]:
        """Return the jobs that are not done, in their order."""
        return [job for job in self._jobs.values() if self._results[job.id].state != "done"]

    def count(self, state: str) -> int:
        """Return how many jobs are in a state."""
        return sum(result.state == state for result in self._results.values())

    def failures(self) -> list[JobResult]:
        """Return the failed jobs by line."""
        failed = [result for result in self._results.values() if result.state == "failed"]
        return sorted(failed, key=lambda result: result.line)

    def add(self, result: JobResult) -> None:
        """Note a result; the file is written now and then."""
        self._results[result.id] = result
        if time.monotonic() > self._next_save:
            self.save()

    def save(self) -> None:
        """Write the file, whole or not at all, its rows by line."""
        began = time.monotonic()
        rows = [
            self._row(self._jobs[result.id], result)
            for result in sorted(self._results.values(), key=lambda result: result.line)
        ]
        with replacing(self._path) as partial:
            parquet.write_table(pyarrow.Table.from_pylist(rows, schema=SCHEMA), partial)
        took = time.monotonic() - began
        self._next_save = time.monotonic() + max(SAVE_SECONDS, took / SAVE_SHARE)

    def _row(self, job: PreparedJob, result: JobResult) -> dict[str, Any]:
        own = {name: getattr(result, name) for name in JobResult.__struct_fields__}
        described = {name: getattr(job, name) for name in ("image", "world", "frames", "seed")}
        video = job.video if result.state == "done" else None
        return {**own, **described, "video": video, "digest": job.digest}


def _read(path: Path) -> list[dict[str, Any]]:
    """Return the rows of an index; raise `InputError` for a file that is none."""
    if not path.exists():
        return []
    try:
        table = parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not a readable index: {reason:.80}; remove it") from None
    if not set(SCHEMA.names) <= set(table.column_names):
        raise InputError(f"{path}: not the index of a batch; choose another folder")
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows
