"""Start a fleet and run until Ctrl-C: Ray, the directory, the ingress, and the control port."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from glassworld.engine.checkpoint.locate import locate_world
from glassworld.errors import InputError
from glassworld.files import writable_folder
from glassworld.play.launch import http_server, listen_on
from glassworld.play.traces.flight_recorder import late_frame_line
from glassworld.serve.control import create_control
from glassworld.serve.directory import Directory
from glassworld.serve.ingress import IngressServer
from glassworld.serve.options import FleetOptions, WorldOptions
from glassworld.serve.ray_cluster import (
    DIRECTORY,
    NAMESPACE,
    actor_errors,
    actor_named,
    answer,
    import_ray,
    joined_ray,
    local_ray,
)

INGRESS = "ingress"
"""The name of the ingress' actor."""

CALL_SECONDS = 30.0

START_SECONDS = 300.0
"""How long the ingress may take to start: on a busy machine, Python alone takes long."""

CHECK_SECONDS, LATE_FRAMES_SECONDS = 0.5, 2.0


@dataclass(frozen=True)
class LaunchOptions:
    """Where a fleet runs; the help of the command line describes it."""

    fleet: FleetOptions
    control_port: int = 8766
    cluster: str | None = None  # the address of a running Ray


def serve_fleet(options: LaunchOptions) -> None:
    """Serve until Ctrl-C; raise `InputError` for what cannot be served."""
    console, started = Console(), time.perf_counter()
    ray = import_ray()
    fleet = options.fleet
    for world in fleet.worlds:  # fails before anything starts
        world.load.check_cluster_device()
        locate_world(world.load)
    listen_on(fleet.host, fleet.port).close()
    control = listen_on("127.0.0.1", options.control_port, "--control-port")
    workers = sum(world.max_workers for world in fleet.worlds)
    with control, _state_folder(fleet.state_folder) as folder:
        fleet = replace(fleet, state_folder=folder, secret=secrets.token_bytes(32))
        with joined_ray(options.cluster) if options.cluster else local_ray(workers + 1):
            gpus = int(ray.cluster_resources().get("GPU", 0))
            fleet, device = _settle_device(fleet, gpus)
            _check_gpus(fleet, gpus)
            if device:
                console.print(device, highlight=False, soft_wrap=True)
            _start(fleet)
            try:
                control_url = f"http://127.0.0.1:{control.getsockname()[1]}/"
                runner = _Runner(console, fleet, control_url, started)
                server = http_server(create_control(), "critical")
                signal.signal(signal.SIGTERM, _interrupt)
                with suppress(KeyboardInterrupt):
                    asyncio.run(runner.run(server.serve(sockets=[control])))
            finally:
                _end()
    if runner.failure:
        raise InputError(runner.failure)


def _interrupt(*_: object) -> None:
    """End like after Ctrl-C."""
    raise KeyboardInterrupt


@contextmanager
def _state_folder(given: str) -> Iterator[str]:
    """Yield the folder of the snapshots: the one given, or one that is removed at the end."""
    if given:
        yield str(writable_folder(Path(given)).absolute())
        return
    folder = tempfile.mkdtemp(prefix="glassworld-fleet-")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _settle_device(fleet: FleetOptions, gpus: int) -> tuple[FleetOptions, str]:
    """Return the fleet on a Ray with so many GPUs, and a line that says what "auto" is there.

    Where GPUs are few, the worlds have fewer workers. Raises `InputError` if they are fewer than
    the worlds, all of which are loaded with the same flags.
    """
    most, worlds = fleet.worlds[0].max_workers, len(fleet.worlds)
    if fleet.worlds[0].load.device != "auto":
        return fleet, ""
    if not gpus:
        return fleet.on_cluster(gpus), "device: the CPU for each worker, because Ray sees no GPU"
    share = gpus // worlds
    if not share:
        raise InputError(
            f"--device auto: {worlds} worlds need a GPU each, and Ray sees {gpus}; serve fewer "
            "worlds, add machines with GPUs, or use --device cpu"
        )
    line = f"device: a GPU for each worker; Ray sees {gpus}"
    if most > share:
        line += (
            f", so a world has at most {share} of {most} workers; add machines with GPUs, or use "
            "--device cpu"
        )
    limited = (
        replace(world, workers=min(world.workers, share), max_workers=min(most, share))
        for world in fleet.worlds
    )
    return replace(fleet, worlds=tuple(limited)), line


def _check_gpus(fleet: FleetOptions, gpus: int) -> None:
    wanted = sum(world.workers for world in fleet.worlds if world.load.needs_gpu)
    if wanted > gpus:
        raise InputError(
            f"--device cuda: {wanted} workers need a GPU each, and Ray sees {gpus}; "
            "use fewer workers, add machines with GPUs, or use --device cpu"
        )


def _start(fleet: FleetOptions) -> None:
    """Start the directory, which starts the workers, and the ingress; they end with `_end`.

    The ingress runs on this machine: its address was checked here and is printed here.
    """
    ray = import_ray()
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    lasting = {
        "namespace": NAMESPACE,
        "lifetime": "detached",
        "max_restarts": -1,
        "num_cpus": 0,
    }
    try:
        ray.remote(Directory).options(name=DIRECTORY, max_concurrency=1000, **lasting).remote(fleet)
    except ValueError:
        raise InputError(
            "--cluster: a fleet runs there already; press Ctrl-C where it was started, or name "
            "another cluster"
        ) from None
    without_secret = replace(fleet, secret=b"")
    ray.remote(IngressServer).options(name=INGRESS, scheduling_strategy=here, **lasting).remote(
        without_secret
    )


def _end() -> None:
    """End the fleet's actors, which would outlive this process on a cluster."""
    ray = import_ray()
    names = [INGRESS, DIRECTORY]
    with suppress(*actor_errors()):
        for world in asyncio.run(answer(actor_named(DIRECTORY).status.remote(), CALL_SECONDS)):
            names += [*world["starting"], *(report.name for report, _ in world["workers"])]
    for name in names:
        with suppress(*actor_errors()):
            ray.kill(actor_named(name))


class _Runner:
    """Runs the control port, and says when the fleet is ready or cannot be."""

    def __init__(
        self, console: Console, fleet: FleetOptions, control_url: str, started: float
    ) -> None:
        self._console, self._fleet, self._started = console, fleet, started
        self._control_url, self.failure = control_url, ""

    async def run(self, control: Any) -> None:
        """Run until the control port ends, or until no world can be loaded."""
        self._print(f"status at {self._control_url} (this machine only)")
        jobs = (control, self._until_ready(), self._print_late_frames())
        serving, ready, printing = tasks = [asyncio.ensure_future(job) for job in jobs]
        try:
            await asyncio.wait((serving, ready), return_when=asyncio.FIRST_COMPLETED)
            if ready.done() and not self.failure:
                ready.result()
                done, _ = await asyncio.wait(
                    (serving, printing), return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    task.result()
        finally:  # also after Ctrl-C, which ends the server's task by an exception
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _until_ready(self) -> None:
        """Wait until every world has a worker; set `failure` if none can load it."""
        await answer(actor_named(INGRESS).ping.remote(), START_SECONDS)
        waiting = {world.name: world for world in self._fleet.worlds}
        while waiting and not self.failure:
            await asyncio.sleep(CHECK_SECONDS)
            with suppress(*actor_errors()):
                for world in await answer(actor_named(DIRECTORY).status.remote(), CALL_SECONDS):
                    self._check_world(world, waiting)
        if not self.failure:
            seconds = time.perf_counter() - self._started
            self._print(f"play at http://{self._fleet.host}:{self._fleet.port}/")
            self._print(f"ready after {seconds:.1f} s; press Ctrl-C to stop")

    def _check_world(self, world: dict[str, Any], waiting: dict[str, WorldOptions]) -> None:
        ready = [report for report, _ in world["workers"] if report.state == "ready"]
        if ready and waiting.pop(world["world"], None) is not None:
            for line in filter(None, {report.note for report in ready}):
                self._print(line)
        elif world["failure"] and world["world"] in waiting:
            self.failure = f"world {world['world']}: no worker can start: {world['failure']}"

    async def _print_late_frames(self) -> None:
        """Print a line about every new recording of a late frame; never return."""
        known: set[str] = set()
        while True:
            await asyncio.sleep(LATE_FRAMES_SECONDS)
            with suppress(*actor_errors()):
                for world in await answer(actor_named(DIRECTORY).status.remote(), CALL_SECONDS):
                    for report, _ in world["workers"]:
                        for late in report.late_frames:
                            if late.trace not in known:
                                known.add(late.trace)
                                self._print(late_frame_line(late, report.address))

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, soft_wrap=True)
