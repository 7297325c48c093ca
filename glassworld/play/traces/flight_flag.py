"""The flag `--flight-recorder` of `glassworld play` and `glassworld serve`; needs no torch."""

from __future__ import annotations

from typing import Annotated

import typer

DEFAULT_SECONDS, MAX_SECONDS = 30, 600

FlightRecorderFlag = Annotated[
    int,
    typer.Option(
        min=0,
        max=MAX_SECONDS,
        metavar="SECONDS",
        help="Seconds of tags to keep in memory: a late frame writes them as a trace, which the "
        "page lists with its report. 0 keeps none.",
    ),
]
