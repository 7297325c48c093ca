"""The command `glassworld play`; heavy imports wait until it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from glassworld.engine.checkpoint.options import LoadOptions
from glassworld.load_flags import with_load_flags
from glassworld.play.traces.flight_flag import DEFAULT_SECONDS, FlightRecorderFlag

app = typer.Typer(rich_markup_mode="markdown")

EXAMPLES = """Examples:

- `glassworld play`: drive a car in the embedded world

- `glassworld play --world my-world --device cuda`: play the world in a folder, which holds
  `inference.yaml` and the weights

- `glassworld play --host 0.0.0.0 --no-open`: let others on your network play; give them the
  address that the server prints, with its token
"""


@app.command(epilog=EXAMPLES)
@with_load_flags()
def play(
    load: LoadOptions,
    host: Annotated[
        str,
        typer.Option(
            help="Address to listen on. Any address but this machine's requires the token."
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 picks a free one.")
    ] = 8765,
    flight_recorder: FlightRecorderFlag = DEFAULT_SECONDS,
    no_open: Annotated[bool, typer.Option("--no-open", help="Do not open a browser.")] = False,
) -> None:
    """Play a world in your browser and see the time of every stage. Press Ctrl-C to stop."""
    from glassworld.play.launch import PlayOptions, serve

    serve(PlayOptions(host, port, not no_open, load, flight_recorder))
