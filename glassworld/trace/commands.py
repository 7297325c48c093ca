"""`glassworld trace ...`: the commands. Heavy imports wait until a command runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    help="Read a torch trace and say where the time went, and what to do about it.",
)

TracePath = Annotated[Path, typer.Argument(help="A trace: .json or .json.gz from torch.profiler.")]


@app.command()
def report(
    trace: TracePath,
    json: Annotated[
        Path | None, typer.Option(help="Write the whole analysis to this JSON file.")
    ] = None,
) -> None:
    """Answer every question about a trace, in the terminal and as one offline page.

    Example: glassworld trace report outputs/profile_trace.json
    """
    from glassworld.trace.analysis import analyze
    from glassworld.trace.export import analysis_json, write_json

    analysis = analyze(trace)
    if json:
        write_json(json, analysis_json(analysis))
