"""The arguments that many commands of `glassworld trace` take, and how they load and print."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glassworld.errors import InputError

if TYPE_CHECKING:
    from glassworld.trace.report.sections import Section
    from glassworld.trace.timeline.analysis import Analysis

PARTS = "Parts of the report"
TOOLS = "Several traces, other viewers"

TracePath = Annotated[Path, typer.Argument(help="A trace of torch.profiler or another profiler.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
TagsOnly = Annotated[
    bool, typer.Option("--tags-only", help="Read only the tags: faster; no operators, no GPU.")
]
GraphCapture = Annotated[
    Path | None,
    typer.Option(
        "--graph-capture",
        metavar="TRACE",
        help="A trace in which the passes of replayed GPU graphs run without graphs, such as the "
        "warm-up before the capture. Its tags and modules name their kernels.",
    ),
]
TagName = Annotated[
    str | None, typer.Argument(help="A tag's name or part of it. Default: the whole trace.")
]

ROWS = 25
Most = Annotated[
    int | None,
    typer.Option(
        "-n", "--most", min=1, help="Number of rows.", show_default=f"{ROWS}, with --json all"
    ),
]


def load_analysis(
    path: Path, tags_only: bool = False, graph_capture: Path | None = None
) -> Analysis:
    """Analyze a trace as `load_with_progress` does; say on stderr what of it could not be read.

    With a trace of the capture, say also which graphs it names.
    """
    from glassworld.trace.analyzers.caveats import graph_caveats

    analysis = load_with_progress(path, tags_only, graph_capture)
    named = graph_caveats(analysis) if graph_capture is not None else []
    say_losses(path, [*analysis.trace.losses, *named])
    return analysis


def say_losses(path: str | Path, losses: Iterable[str]) -> None:
    """Say on stderr what could not be read: figures of a damaged file lack it."""
    for loss in losses:
        typer.echo(f"note {path}: {loss}", err=True)


def load_with_progress(
    path: Path, tags_only: bool = False, graph_capture: Path | None = None
) -> Analysis:
    """Analyze a trace, with a progress bar on stderr where the file is large."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress

    from glassworld.trace import analyze

    size = path.stat().st_size if path.is_file() else 0
    if size < 64 << 20:
        return analyze(path, tags_only=tags_only, graph_capture=graph_capture)
    whole = size * (12 if path.suffix == ".gz" else 1)  # traces compress about twelvefold
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(escape(f"Reading {path.name}"), total=whole)
        return analyze(
            path,
            lambda read: progress.update(task, completed=read),
            tags_only,
            graph_capture,
        )


def print_json(rows: Sequence[Any]) -> None:
    """Print result rows (dataclasses) as one JSON list."""
    import msgspec

    from glassworld.trace.report.json_export import rows_json

    typer.echo(msgspec.json.encode(rows_json(rows)))


def print_json_object(result: Any) -> None:
    """Print one result (a dataclass) as a JSON object."""
    import msgspec

    from glassworld.trace.report.json_export import rows_json

    typer.echo(msgspec.json.encode(rows_json([result])[0]))


def print_section(
    section: Section, analysis: Analysis, as_json: bool, most: int | None = None
) -> None:
    """Print a section of the report: as JSON, or as a table of at most `most` rows."""
    from rich.console import Console

    from glassworld.trace.report.terminal import show_section

    if as_json:
        print_json(section.rows(analysis)[:most])
    elif not show_section(Console(), section, analysis, most, "with -n"):
        Console().print(f"{section.title}: {section.missing}.", markup=False)


def row_limit(most: int | None, as_json: bool) -> int | None:
    """Return the most rows to print: by default all as JSON, few in a table."""
    return most or (None if as_json else ROWS)


def check_output(written: Path, *others: Path) -> None:
    """Raise `InputError` before the work if a file cannot be written, or would replace another."""
    if any(written.resolve() == other.resolve() for other in others):
        raise InputError(
            f"{written}: is read or written by this command already; name another file"
        )
    if written.is_dir():
        raise InputError(f"{written}: is a folder; name the file to write")
    if not written.parent.is_dir():
        raise InputError(f"{written}: the folder {written.parent} does not exist; make it first")
