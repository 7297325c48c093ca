"""`glassworld trace ...`: the commands. Heavy imports wait until a command runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from glassworld.trace.analysis import Analysis

app = typer.Typer(
    no_args_is_help=True,
    help="Read a torch trace and say where the time went, and what to do about it.",
)

TracePath = Annotated[Path, typer.Argument(help="A trace: .json or .json.gz from torch.profiler.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
TagsOnly = Annotated[
    bool, typer.Option("--tags-only", help="Read the tags alone: faster; no operators, no GPU.")
]
Most = Annotated[int, typer.Option("-n", "--most", min=1, help="How many rows to show.")]


def load(path: Path, tags_only: bool = False) -> Analysis:
    """Analyse with a progress bar on stderr where the file is large."""
    from rich.console import Console
    from rich.progress import Progress

    from glassworld.trace.analysis import analyze

    size = path.stat().st_size if path.is_file() else 0
    if size < 64 << 20:
        return analyze(path, tags_only=tags_only)
    whole = size * (12 if path.suffix == ".gz" else 1)  # traces compress about twelvefold
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"Reading {path.name}", total=whole)
        return analyze(path, lambda read: progress.update(task, completed=read), tags_only)


def answer(as_json: bool, rows: Sequence[Any], table: Table, empty: str) -> None:
    """Print result rows as JSON or as a table; `empty` says why there are none."""
    from rich.console import Console

    if as_json:
        print_json(rows)
    elif rows:
        Console().print(table)
    else:
        Console().print(empty)


def print_json(rows: Sequence[Any]) -> None:
    """Print result rows (dataclasses) as one JSON list."""
    import msgspec

    from glassworld.trace.export import rows_json

    typer.echo(msgspec.json.encode(rows_json(rows)))


@app.command()
def report(
    trace: TracePath,
    html: Annotated[
        Path | None,
        typer.Option(help="Where to write the page; beside the trace if not given."),
    ] = None,
    json: Annotated[
        Path | None, typer.Option(help="Write the whole analysis to this JSON file.")
    ] = None,
) -> None:
    """Answer every question about a trace, in the terminal and as one offline page.

    Example: glassworld trace report outputs/profile_trace.json --json analysis.json
    """
    from rich.console import Console

    from glassworld.trace.export import analysis_json, write_json
    from glassworld.trace.page import page_path, write_page
    from glassworld.trace.terminal import show

    analysis = load(trace)
    console = Console()
    show(console, analysis)
    if json:
        write_json(json, analysis_json(analysis))
        console.print(f"\nAnalysis: {json}", soft_wrap=True)
    page = html or page_path(trace)
    write_page(page, analysis)
    console.print(f"Report: {page}", soft_wrap=True)


@app.command()
def top(trace: TracePath, most: Most = 15, tags_only: TagsOnly = False, json: Json = False) -> None:
    """The slowest tags.

    Example: glassworld trace top outputs/profile_trace.json -n 5
    """
    from glassworld.trace.questions import top as slowest
    from glassworld.trace.terminal import tags_table

    rows = slowest(load(trace, tags_only), most)
    answer(json, rows, tags_table(rows), "No tags in this trace; see `glassworld trace ops`.")


@app.command()
def blocks(trace: TracePath, json: Json = False) -> None:
    """How long each block took, of what, and which are outliers."""
    from glassworld.trace import questions
    from glassworld.trace.terminal import blocks_table

    analysis = load(trace)
    rows = questions.blocks(analysis)
    answer(json, rows, blocks_table(analysis), "No blocks (2.3_Block_i) in this trace.")


@app.command()
def steps(trace: TracePath, json: Json = False) -> None:
    """How the denoising steps compare."""
    from glassworld.trace import questions
    from glassworld.trace.terminal import steps_table

    analysis = load(trace)
    rows = questions.steps(analysis)
    answer(json, rows, steps_table(analysis), "No denoising steps in this trace.")


@app.command()
def ops(
    trace: TracePath,
    tag: Annotated[
        str | None, typer.Argument(help="A tag's name or part of it; the whole trace if left out.")
    ] = None,
    most: Most = 25,
    json: Json = False,
) -> None:
    """The operators under a tag.

    Example: glassworld trace ops outputs/profile_trace.json DiT_Self_Attention
    """
    from glassworld.trace.optable import operator_rows
    from glassworld.trace.terminal import operators_table

    rows = operator_rows(load(trace), tag)
    answer(json, rows, operators_table(rows, most), "No operators here (a tags-only trace?).")


@app.command()
def gaps(trace: TracePath, most: Most = 20, json: Json = False) -> None:
    """Where the GPU idles, and what the CPU did meanwhile."""
    from glassworld.trace.gaps import idle_gaps
    from glassworld.trace.terminal import gaps_table

    analysis = load(trace)
    rows = idle_gaps(analysis, most)
    empty = "No GPU operations in this trace." if not analysis.on_gpu else "No gaps worth a name."
    answer(json, rows, gaps_table(analysis, most), empty)


@app.command()
def compare(
    before: TracePath,
    after: TracePath,
    fail_over: Annotated[
        str | None, typer.Option(help="Exit with 1 if a tag became slower by more, e.g. 5%.")
    ] = None,
    json: Json = False,
) -> None:
    """What changed between two runs, tag by tag, with the noise.

    Example: glassworld trace compare before.json after.json --fail-over 5%
    """
    from rich.console import Console

    from glassworld.trace.compare import compare as compare_runs
    from glassworld.trace.terminal import comparison_table

    limit = _share(fail_over) if fail_over is not None else None
    comparison = compare_runs(load(before), load(after))
    console = Console()
    if json:
        print_json(comparison.changes)
    else:
        console.print(comparison_table(comparison))
        for where, only in (("before", comparison.only_before), ("after", comparison.only_after)):
            if only:
                console.print(f"only {where}: {', '.join(only)}", style="dim")
    worse = comparison.regressions(limit) if limit is not None else []
    if worse:
        names = ", ".join(change.path[-1] for change in worse[:5])
        typer.echo(f"slower by more than {fail_over}: {names}", err=True)
        raise typer.Exit(1)


def _share(text: str) -> float:
    from glassworld.errors import TraceError

    try:
        value = float(text.rstrip("% ")) / 100
    except ValueError:
        value = -1.0
    if value < 0:
        raise TraceError(f"--fail-over {text}: must be a percentage such as 5%")
    return value


@app.command()
def merge(
    traces: Annotated[list[Path], typer.Argument(help="One trace per rank, rank 0 first.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The trace to write.")] = Path(
        "merged_trace.json"
    ),
    json: Json = False,
) -> None:
    """Put the traces of several ranks on one clock, and say who waits for whom.

    Example: glassworld trace merge rank0.json rank1.json -o both.json
    """
    from glassworld.trace.merge import align
    from glassworld.trace.merge import merge as write
    from glassworld.trace.terminal import table

    ranks = align(traces)
    count = write(traces, output, ranks)
    columns = ("rank", "clock offset ms", "collectives", "ms in them", "waited ms")
    rows = [
        (f"{r.rank} {r.path}", r.offset_ms, r.collectives, r.collective_ms, r.waited_ms)
        for r in ranks
    ]
    answer(json, ranks, table("9. Who waits for whom?", columns, rows), "")
    if not json:
        typer.echo(f"{count:,} events: {output}")


@app.command(name="open")
def open_trace(
    trace: TracePath,
    port: Annotated[int, typer.Option(help="The port Perfetto may fetch from.")] = 9001,
    json: Json = False,
) -> None:
    """Serve a trace on loopback for ui.perfetto.dev, once, and print its address."""
    from glassworld.trace.serve import perfetto_address, serve_once

    address = perfetto_address(trace, port)
    if json:
        import msgspec

        typer.echo(msgspec.json.encode({"url": address}))
    else:
        typer.echo(f"Open {address}\n(serving {trace} until it is fetched; Ctrl+C stops)")
    serve_once(trace, port)
