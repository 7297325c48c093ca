"""The command `glassworld serve`; heavy imports wait until it runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from glassworld.engine.checkpoint.options import LoadOptions
from glassworld.errors import InputError
from glassworld.load_flags import with_load_flags
from glassworld.play.traces.flight_flag import DEFAULT_SECONDS, FlightRecorderFlag

app = typer.Typer(rich_markup_mode="markdown")

EXAMPLES = """Examples:

- `glassworld serve --workers 2`: two workers of the default world on this machine

- `glassworld serve --workers 1 --max-workers 4 --seats 2`: as many workers as players need

- `glassworld serve --world maze --also my-world --device cuda`: two worlds in one fleet

- `glassworld serve --cluster auto --state /shared/glassworld`: on the Ray cluster of this machine
"""

PLACES, SIZE = "Addresses", "Size"


def _option(text: str, panel: str, **more: object) -> object:
    return typer.Option(help=text, rich_help_panel=panel, **more)  # type: ignore[arg-type]


@app.command(epilog=EXAMPLES)
@with_load_flags()
def fleet_command(
    load: LoadOptions,
    also: Annotated[
        list[str] | None,
        _option("One more world, loaded with the same flags; may be repeated.", SIZE),
    ] = None,
    workers: Annotated[int, _option("Workers of each world, at least.", SIZE, min=1)] = 2,
    max_workers: Annotated[
        int | None,
        _option("Workers of each world, at most. Default: as many as --workers.", SIZE, min=1),
    ] = None,
    seats: Annotated[int, _option("Players of each worker.", SIZE, min=1, max=256)] = 4,
    flight_recorder: FlightRecorderFlag = DEFAULT_SECONDS,
    cluster: Annotated[
        str | None,
        _option("Join the Ray cluster at this address (auto: this machine's).", SIZE),
    ] = None,
    state: Annotated[
        Path | None,
        _option(
            "Folder for snapshots, which all workers see. Required for --cluster. Default: a "
            "temporary one.",
            SIZE,
        ),
    ] = None,
    host: Annotated[str, _option("Address that players come to.", PLACES)] = "127.0.0.1",
    port: Annotated[int, _option("Port that players come to.", PLACES, min=1, max=65535)] = 8765,
    control_port: Annotated[
        int,
        _option("Port of the status page, on this machine only.", PLACES, min=0, max=65535),
    ] = 8766,
    worker_host: Annotated[
        str | None,
        _option("Address that workers listen on. Default: that of --host.", PLACES),
    ] = None,
    worker_port: Annotated[
        int,
        _option("First port of the workers. Default: any free ones.", PLACES, min=0, max=65535),
    ] = 0,
    worker_url: Annotated[
        str | None,
        _option(
            "Where players reach a worker, such as wss://play.example.org/worker/{port}; also "
            "{host} and {node}.",
            PLACES,
        ),
    ] = None,
    public_host: Annotated[
        list[str] | None,
        _option("A name under which a proxy forwards to --host; may be repeated.", PLACES),
    ] = None,
    trusted_proxy: Annotated[
        list[str] | None,
        _option("A proxy's address, whose X-Forwarded-For is believed; may be repeated.", PLACES),
    ] = None,
) -> None:
    """Serve players on several workers, on this machine or a Ray cluster. Press Ctrl-C to stop."""
    from glassworld.engine.checkpoint.locate import DEFAULT_WORLD
    from glassworld.serve.launch import LaunchOptions, serve_fleet
    from glassworld.serve.options import WORKER_URL, FleetOptions, WorldOptions

    most = workers if max_workers is None else max_workers
    if most < workers:
        raise InputError(
            f"--max-workers {most}: less than --workers {workers}; give at least as many"
        )
    if cluster is not None and state is None:
        raise InputError("--cluster: needs --state, a folder that all workers see")
    default_url = WORKER_URL.replace("host", "node") if cluster else WORKER_URL
    names = [str(load.world or DEFAULT_WORLD), *(also or ())]
    fleet = FleetOptions(
        worlds=tuple(
            WorldOptions(_short_name(name), replace(load, world=name), workers, most, seats)
            for name in names
        ),
        state_folder=str(state or ""),
        host=host,
        port=port,
        worker_host=worker_host or host,
        worker_port=worker_port,
        worker_url=_checked_url(worker_url or default_url),
        public_hosts=tuple(public_host or ()),
        trusted_proxies=tuple(trusted_proxy or ()),
        flight_recorder=flight_recorder,
    )
    if len({world.name for world in fleet.worlds}) < len(fleet.worlds):
        raise InputError("--also: two worlds have the same name; rename a folder")
    serve_fleet(LaunchOptions(fleet, control_port, cluster))


def _short_name(world: str) -> str:
    """Return the last part of a world's path or repository."""
    return Path(world).name or world


def _checked_url(url: str) -> str:
    try:
        url.format(host="h", node="n", port=1)
    except (LookupError, ValueError):
        raise InputError(
            f"--worker-url {url}: only {{host}}, {{node}} and {{port}} can be filled in; use those"
        ) from None
    if not url.startswith(("ws://", "wss://")):
        raise InputError(f"--worker-url {url}: must begin with ws:// or wss://")
    return url.rstrip("/")
