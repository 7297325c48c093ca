"""The commands that keep traces under a name, to compare later runs with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from glassworld.trace.cli.options import TOOLS

app = typer.Typer()
_baseline = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Keep traces under a name, to compare later runs with.",
    epilog="**Example:** `glassworld trace baseline save main trace.json`, then "
    "`glassworld trace compare main new.json --markdown`.",
)
app.add_typer(_baseline, name="baseline", rich_help_panel=TOOLS)

Name = Annotated[str, typer.Argument(help="The name, such as main.")]


@_baseline.command("save")
def save_command(
    name: Name, trace: Annotated[Path, typer.Argument(help="The trace to keep a copy of.")]
) -> None:
    """Keep a copy of a trace under a name, in place of an earlier one."""
    from glassworld.trace.writing.baselines import keep_trace

    typer.echo(f"Kept as {name}: {keep_trace(name, trace)}")


@_baseline.command("list")
def list_command() -> None:
    """List the names."""
    from glassworld.trace.writing.baselines import baseline_names

    typer.echo("\n".join(baseline_names()) or "There are no baselines.")


@_baseline.command("delete")
def delete_command(name: Name) -> None:
    """Delete the copy that a name stands for."""
    from glassworld.trace.writing.baselines import delete_baseline

    delete_baseline(name)
    typer.echo(f"Deleted {name}.")
