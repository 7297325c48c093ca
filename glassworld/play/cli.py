"""`glassworld play`. Heavy imports wait until the command runs."""

from __future__ import annotations

from typing import Annotated

import typer

from glassworld.engine.checkpoint.options import LoadOptions
from glassworld.load_flags import with_load_flags

app = typer.Typer(rich_markup_mode="markdown")

EXAMPLES = """Examples:

- `glassworld play` walks through the embedded world

- `glassworld play --world my-world --device cuda` through the world in a folder: its
  `inference.yaml` and weights

- `glassworld play --host 0.0.0.0 --no-open` for others on the network; they need the address
  with the token that is printed
"""


@app.command(epilog=EXAMPLES)
@with_load_flags()
def play(
    load: LoadOptions,
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but this machine's needs the token.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 8765,
    no_open: Annotated[bool, typer.Option("--no-open", help="Do not open a browser.")] = False,
) -> None:
    """Walk through a world in the browser, with its milliseconds in view. Ctrl-C ends it."""
    from glassworld.play.launch import PlayOptions, serve

    serve(PlayOptions(host, port, not no_open, load))
