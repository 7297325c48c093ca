"""Jobs on a Ray cluster, by Ray Data: actors that keep a world and render one job after another."""

from __future__ import annotations

import logging
import os
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from glassworld.batch.executors import RenderOptions
from glassworld.batch.jobs import PreparedJob
from glassworld.batch.render import JobResult
from glassworld.errors import InputError, MissingExtraError

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

try:
    import ray
    import ray.data
except ModuleNotFoundError:
    raise MissingExtraError("ray, which a cluster needs,", "cluster") from None


@dataclass(frozen=True)
class RayCluster:
    """Renders jobs on the cluster of `RAY_ADDRESS`, or on a Ray of this machine.

    The folder and the files that jobs name must have the same paths on all its machines.
    """

    options: RenderOptions
    workers: int

    def run(self, jobs: Sequence[PreparedJob]) -> Generator[JobResult]:
        """Yield each job's result."""
        if not jobs:
            return
        _connect(self.options)
        try:
            for row in self._dataset(jobs).iter_rows():
                yield msgspec.json.decode(row["result"], type=JobResult)
        finally:
            ray.shutdown()

    def _dataset(self, jobs: Sequence[PreparedJob]) -> Any:
        """Return a data set of results, one for each job, computed as it is read."""
        gpu = self.options.load.device.startswith("cuda")
        rows = [{"job": msgspec.json.encode(job).decode()} for job in jobs]
        dataset = ray.data.from_items(rows, override_num_blocks=len(rows))
        return dataset.map_batches(
            _RayRenderer,
            fn_constructor_args=(self.options,),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=self.workers),
            num_cpus=self.options.threads,
            num_gpus=1 if gpu else None,
        )


class _RayRenderer:
    """An actor of the cluster."""

    def __init__(self, options: RenderOptions) -> None:
        self._renderer = options.renderer()

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        jobs = [msgspec.json.decode(text, type=PreparedJob) for text in batch["job"]]
        results = [self._renderer.render(job) for job in jobs]
        return {"result": [msgspec.json.encode(result).decode() for result in results]}


def _connect(options: RenderOptions) -> None:
    """Connect to the cluster; raise `InputError` if it cannot render on the device."""
    try:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"cluster: no Ray: {reason:.200}; check RAY_ADDRESS") from None
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = False
    if options.load.device.startswith("cuda") and not ray.cluster_resources().get("GPU"):
        ray.shutdown()
        raise InputError("device: the cluster has no GPU; add one, or use --device cpu")
