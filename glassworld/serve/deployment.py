"""The ingress as a Ray Serve application, for `serve deploy deploy/serve.yaml`.

Ray Serve runs the ingress on every machine and restarts it; frames go past it, by the workers' own
sockets. The fleet's options are the arguments of the application.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated, Any

import msgspec

from glassworld.engine.checkpoint.options import LoadOptions
from glassworld.errors import InputError
from glassworld.files import writable_folder
from glassworld.play.traces.flight_flag import DEFAULT_SECONDS, MAX_SECONDS
from glassworld.serve.directory import Directory
from glassworld.serve.ingress import create_ingress
from glassworld.serve.options import FleetOptions, WorldOptions
from glassworld.serve.ray_cluster import DIRECTORY, NAMESPACE, import_ray

SECRET_VARIABLE = "GLASSWORLD_SECRET"
"""The environment variable with the secret that signs tickets; every machine needs the same."""

MIN_SECRET = 32

ANY_HOST = "0.0.0.0"


class WorldArguments(msgspec.Struct, forbid_unknown_fields=True):
    """A world of the application's arguments; `load` are fields of `LoadOptions`."""

    name: str
    load: dict[str, Any] = {}
    workers: int = 1
    max_workers: int = 1
    seats: int = 4


class FleetArguments(msgspec.Struct, forbid_unknown_fields=True):
    """The application's arguments: see `deploy/serve.yaml`."""

    worlds: list[WorldArguments]
    state_folder: str
    worker_url: str
    worker_port: int = 8770
    trusted_proxies: list[str] = []
    flight_recorder: Annotated[int, msgspec.Meta(ge=0, le=MAX_SECONDS)] = DEFAULT_SECONDS


def fleet_options(arguments: dict[str, Any], secret: str) -> FleetOptions:
    """Return the options of a fleet on a cluster; raise `InputError` for what is wrong in them."""
    try:
        given = msgspec.convert(arguments, FleetArguments)
        worlds = tuple(
            WorldOptions(
                world.name, LoadOptions(**world.load), world.workers, world.max_workers, world.seats
            )
            for world in given.worlds
        )
    except (msgspec.ValidationError, TypeError) as error:
        raise InputError(f"args of the application: {error}; fix args") from None
    if not worlds:
        raise InputError("args of the application: name at least one world")
    for world in worlds:
        world.load.check_cluster_device()
    if len(secret) < MIN_SECRET:
        raise InputError(
            f"{SECRET_VARIABLE}: set it to at least {MIN_SECRET} random characters, the same on "
            "every machine"
        )
    return FleetOptions(
        worlds=worlds,
        state_folder=given.state_folder,
        host=ANY_HOST,
        worker_host=ANY_HOST,
        worker_port=given.worker_port,
        worker_url=given.worker_url.rstrip("/"),
        trusted_proxies=tuple(given.trusted_proxies),
        flight_recorder=given.flight_recorder,
        secret=secret.encode(),
    )


def build(arguments: dict[str, Any]) -> Any:
    """Return the application; Ray Serve calls this with the `args` of its file."""
    import_ray()
    from ray import serve

    options = fleet_options(arguments, os.environ.get(SECRET_VARIABLE, ""))

    @serve.deployment(num_replicas=1, max_ongoing_requests=256)
    @serve.ingress(create_ingress(options))
    class Ingress:
        def __init__(self) -> None:
            writable_folder(Path(options.state_folder))
            find_or_start_directory(options)

        async def check_health(self) -> None:
            await asyncio.to_thread(find_or_start_directory, options)

    deployment: Any = Ingress
    return deployment.bind()


def find_or_start_directory(options: FleetOptions) -> None:
    """Start the directory of the fleet if it does not run.

    Device "auto" is what the cluster has now, for all workers that the directory ever starts.
    """
    ray = import_ray()
    options = options.on_cluster(ray.cluster_resources().get("GPU", 0))
    ray.remote(Directory).options(
        name=DIRECTORY,
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        max_restarts=-1,
        max_concurrency=1000,
        num_cpus=0,
    ).remote(options)
