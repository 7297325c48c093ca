"""What the commands share: their arguments, reading with a progress bar, printing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from glassworld.trace.report.sections import Section
    from glassworld.trace.timeline.analysis import Analysis

TracePath = Annotated[Path, typer.Argument(help="A trace: .json or .json.gz from torch.profiler.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
TagsOnly = Annotated[
    bool, typer.Option("--tags-only", help="Read the tags alone: faster; no operators, no GPU.")
]
ROWS = 25
Most = Annotated[
    int | None,
    typer.Option(
        "-n", "--most", min=1, help="How many rows.", show_default=f"{ROWS}, with --json all"
    ),
]


def load(path: Path, tags_only: bool = False) -> Analysis:
    """Analyse with a progress bar on stderr where the file is large."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress

    from glassworld.trace import analyze

    size = path.stat().st_size if path.is_file() else 0
    if size < 64 << 20:
        return analyze(path, tags_only=tags_only)
    whole = size * (12 if path.suffix == ".gz" else 1)  # traces compress about twelvefold
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(escape(f"Reading {path.name}"), total=whole)
        return analyze(path, lambda read: progress.update(task, completed=read), tags_only)


def print_json(rows: Sequence[Any]) -> None:
    """Print result rows (dataclasses) as one JSON list."""
    import msgspec

    from glassworld.trace.report.json_export import rows_json

    typer.echo(msgspec.json.encode(rows_json(rows)))


def show_question(
    asked: Section, analysis: Analysis, as_json: bool, most: int | None = None
) -> None:
    """Print the answer to a question: as JSON, or as a table of at most so many rows."""
    from rich.console import Console

    from glassworld.trace.report.terminal import show_answer

    if as_json:
        print_json(asked.rows(analysis)[:most])
    elif not show_answer(Console(), asked, analysis, most, "with -n"):
        Console().print(f"{asked.title} {asked.missing}.", markup=False)


def limit(most: int | None, as_json: bool) -> int | None:
    """How many rows there may be: by default all for programs, few for people."""
    return most or (None if as_json else ROWS)
