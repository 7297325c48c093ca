"""`glassworld play`. Heavy imports wait until the command runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(rich_markup_mode="markdown")

EXAMPLES = """Examples:

- `glassworld play` walks through the embedded world

- `glassworld play --world my-world --device cuda` through the world in a folder: its
  `inference.yaml` and weights

- `glassworld play --host 0.0.0.0 --no-open` for others on the network; they need the address
  with the token that is printed
"""


@app.command(epilog=EXAMPLES)
def play(
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but this machine's needs the token.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 8765,
    no_open: Annotated[bool, typer.Option("--no-open", help="Do not open a browser.")] = False,
    world: Annotated[
        Path | None, typer.Option(help="Folder of a world. Default: the embedded one.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(metavar="cpu|cuda|cuda:N", help="Default: a GPU if there is one.")
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(metavar="float32|mixed|bfloat16", help="Default: what suits the device."),
    ] = None,
    accelerate: Annotated[
        str,
        typer.Option(
            metavar="PART,...",
            help="On a GPU: kernels,graphs (same results). Also attention, convolutions, layers, "
            "int8, float8 (nearly).",
        ),
    ] = "",
    tiny_decoder: Annotated[
        Path | None, typer.Option(help="Decode by these TAEHV weights (taew2_1): quicker.")
    ] = None,
) -> None:
    """Walk through a world in the browser, with its milliseconds in view. Ctrl-C ends it."""
    from glassworld.play.launch import PlayOptions, serve

    serve(PlayOptions(host, port, not no_open, world, device, dtype, accelerate, tiny_decoder))
