"""What a fleet serves, and where: sent to every process of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from glassworld.engine.checkpoint.options import LoadOptions
from glassworld.play.traces.flight_flag import DEFAULT_SECONDS

WORKER_URL = "ws://{host}:{port}"
"""Default address of a worker; `{node}` is the address of its machine."""


@dataclass(frozen=True)
class WorldOptions:
    """A world of a fleet, and how many workers and seats it has."""

    name: str
    load: LoadOptions
    workers: int = 2  # at least
    max_workers: int = 2
    seats: int = 4  # of each worker


@dataclass(frozen=True)
class FleetOptions:
    """The options of the command line; its help describes them."""

    worlds: tuple[WorldOptions, ...]
    state_folder: str  # for snapshots; all workers must see it
    host: str = "127.0.0.1"
    port: int = 8765
    worker_host: str = "127.0.0.1"
    worker_port: int = 0  # the first that workers try; 0 takes any free one
    worker_url: str = WORKER_URL
    public_hosts: tuple[str, ...] = ()  # names under which a proxy forwards to a loopback address
    trusted_proxies: tuple[str, ...] = ()  # whose X-Forwarded-For is believed
    flight_recorder: int = DEFAULT_SECONDS  # of each worker
    secret: bytes = field(default=b"", repr=False)  # signs the tickets

    def world(self, name: str | None) -> WorldOptions | None:
        """Return the world of that name, or the first for None; None if there is no such world."""
        if name is None:
            return self.worlds[0]
        return next((world for world in self.worlds if world.name == name), None)

    def on_cluster(self, gpus: float) -> FleetOptions:
        """Return these options on a Ray with so many GPUs, as `LoadOptions.on_cluster` does."""
        worlds = (replace(world, load=world.load.on_cluster(gpus)) for world in self.worlds)
        return replace(self, worlds=tuple(worlds))

    def address(self, host: str, node: str, port: int) -> str:
        """Return a worker's address for a client that reaches this fleet under the name `host`."""
        host = f"[{host}]" if ":" in host else host
        return self.worker_url.format(host=host, node=node, port=port) + "/ws"
