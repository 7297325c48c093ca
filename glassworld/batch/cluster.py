"""Jobs on a Ray cluster, by Ray Data: actors that keep a world and render one job after another."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from glassworld.batch.executors import RenderOptions, remove_leftovers
from glassworld.batch.jobs import PreparedJob
from glassworld.batch.render import JobResult
from glassworld.errors import InputError, MissingExtraError

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

try:
    import ray
    import ray.data
    from ray.exceptions import AuthenticationError
except ModuleNotFoundError:
    raise MissingExtraError("ray, which a cluster needs,", "cluster") from None


ATTEMPTS = 3
"""How often a job is begun before it fails: an actor also dies with its machine, by chance."""


@dataclass(frozen=True)
class RayCluster:
    """Renders jobs on the cluster of `RAY_ADDRESS`, or on a Ray of this machine.

    Ray Data repeats a job whose actor has died without end, so the actors count the attempts.

    The folder and the files that jobs name must have the same paths on all its machines.
    """

    options: RenderOptions
    workers: int  # at most
    report: Callable[[str], None] = print

    def run(self, jobs: Sequence[PreparedJob]) -> Generator[JobResult]:
        """Yield each job's result."""
        if not jobs:
            return
        options = self._connect()
        try:
            for row in self._dataset(options, jobs).iter_rows():
                yield msgspec.json.decode(row["result"], type=JobResult)
        finally:
            ray.shutdown()

    def _dataset(self, options: RenderOptions, jobs: Sequence[PreparedJob]) -> Any:
        """Return a data set of results, one for each job, computed as it is read."""
        rows = [{"job": msgspec.json.encode(job).decode()} for job in jobs]
        dataset = ray.data.from_items(rows, override_num_blocks=len(rows))
        attempts = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Attempts).remote()
        return dataset.map_batches(
            _RayRenderer,
            fn_constructor_args=(options, attempts),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=self.workers),
            num_cpus=options.threads,
            num_gpus=1 if options.load.needs_gpu else None,
        )

    def _connect(self) -> RenderOptions:
        """Connect to the cluster; return the options of its actors, and report what "auto" is.

        Raises `InputError` if there is no cluster, or none that can render on the device.
        """
        _join_cluster()
        gpus = int(ray.cluster_resources().get("GPU", 0))
        load = self.options.load.on_cluster(gpus)
        if load.needs_gpu and not gpus:
            ray.shutdown()
            raise InputError("device: the cluster has no GPU; add one, or use --device cpu")
        if self.options.load.device == "auto":
            self.report(self._meaning_of_auto(gpus))
        return replace(self.options, load=load)

    def _meaning_of_auto(self, gpus: int) -> str:
        """Return a line that says where the actors of device "auto" run."""
        if not gpus:
            return "device: the CPU for each actor, because Ray sees no GPU"
        line = f"device: a GPU for each actor; Ray sees {gpus}"
        if self.workers > gpus:
            line += f", so at most {gpus} run at once; for more, add GPUs or use --device cpu"
        return line


class _Attempts:
    """Counts how often jobs are begun: an actor of its own, which outlives theirs."""

    def __init__(self) -> None:
        self._begun = Counter[str]()

    def begin(self, job: str) -> int:
        """Count an attempt at a job; return its number."""
        self._begun[job] += 1
        return self._begun[job]


class _RayRenderer:
    """An actor of the cluster."""

    def __init__(self, options: RenderOptions, attempts: Any) -> None:
        self._renderer, self._folder = options.renderer(), options.folder
        self._attempts = attempts

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        jobs = [msgspec.json.decode(text, type=PreparedJob) for text in batch["job"]]
        results = [self._render(job) for job in jobs]
        return {"result": [msgspec.json.encode(result).decode() for result in results]}

    def _render(self, job: PreparedJob) -> JobResult:
        """Render a job, or fail it if it has killed its actor too often."""
        attempt = ray.get(self._attempts.begin.remote(job.id))
        if attempt > 1:
            remove_leftovers(self._folder, [job])
        if attempt > ATTEMPTS:
            reason = f"its process died {ATTEMPTS} times: it may lack memory; see Ray's logs"
            return JobResult(job.id, job.line, "failed", error=reason)
        return self._renderer.render(job)


def _join_cluster() -> None:
    """Connect to the cluster of `RAY_ADDRESS`, or start one here; raise `InputError` if none is."""
    try:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, AuthenticationError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"cluster: no Ray: {reason:.200}; check RAY_ADDRESS") from None
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = False
