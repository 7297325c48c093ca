"""`glassworld trace ...`: the commands. Heavy imports wait until a command runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from glassworld.errors import InputError
from glassworld.trace import question_commands
from glassworld.trace.command_line import (
    Json,
    Most,
    TagsOnly,
    TracePath,
    limit,
    load,
    print_json,
    show_question,
)

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Read a torch trace and say where the time went, and what to do about it. "
    "Any JSON that torch.profiler exports will do: any vendor's GPU or none, plain or gzip.",
    epilog="**Start here:** `glassworld trace report outputs/profile_trace.json` answers "
    "everything at once. Every other command is one part of it, and takes `--json`.",
)

TOOLS = "Several traces, other viewers"


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

    Example: `glassworld trace report outputs/profile_trace.json --json analysis.json`
    """
    from rich.console import Console

    from glassworld.trace.report.html import page_path, write_page
    from glassworld.trace.report.json_export import write_json
    from glassworld.trace.report.terminal import show

    page = html or page_path(trace)
    _check_output(page, trace)
    if json:
        _check_output(json, trace, page)
    analysis = load(trace)
    write_page(page, analysis)  # first: whoever reads on in a pager may leave it early
    if json:
        write_json(json, analysis)
    console = Console()
    show(console, analysis)
    console.print()
    if json:
        console.print(f"Analysis: {json}", soft_wrap=True, markup=False)
    console.print(f"Report: {page}", soft_wrap=True, markup=False)


@app.command()
def top(
    trace: TracePath, most: Most = None, tags_only: TagsOnly = False, json: Json = False
) -> None:
    """The slowest tags, by the time outside the tags inside them.

    Example: `glassworld trace top outputs/profile_trace.json -n 5`
    """
    from glassworld.trace.report.sections import SLOWEST

    show_question(SLOWEST, load(trace, tags_only), json, limit(most, json))


app.add_typer(question_commands.app)


@app.command(rich_help_panel=TOOLS)
def compare(
    before: TracePath,
    after: TracePath,
    fail_over: Annotated[
        str | None, typer.Option(help="Exit with 1 if a tag became slower by more, e.g. 5%.")
    ] = None,
    json: Json = False,
) -> None:
    """What changed between two runs, tag by tag, with the noise (question 9).

    A tag is called slower only if its median moved by more than three standard errors, which are
    estimated from its repeated instances.

    Example: `glassworld trace compare before.json after.json --fail-over 5%`
    """
    from rich.console import Console

    from glassworld.trace.analyzers.compare import compare as compare_runs
    from glassworld.trace.report.terminal import show_comparison

    limit = _share(fail_over) if fail_over is not None else None
    comparison = compare_runs(load(before), load(after))
    if json:
        print_json(comparison.changes)
    else:
        show_comparison(Console(), comparison)
    worse = comparison.regressions(limit) if limit is not None else []
    if worse:
        names = ", ".join(list(dict.fromkeys(change.path[-1] for change in worse))[:5])
        typer.echo(f"slower by more than {fail_over}: {names}", err=True)
        raise typer.Exit(1)


def _share(text: str) -> float:
    from glassworld.errors import TraceError

    try:
        value = float(text.rstrip("% ")) / 100
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise TraceError(f"--fail-over {text}: must be a percentage such as 5%")
    return value


@app.command(rich_help_panel=TOOLS)
def merge(
    traces: Annotated[list[Path], typer.Argument(help="One trace per rank, rank 0 first.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The trace to write.")] = Path(
        "merged_trace.json"
    ),
    json: Json = False,
) -> None:
    """Put the traces of several ranks on one clock, and say who waits for whom (question 9).

    Example: `glassworld trace merge rank0.json rank1.json -o both.json`
    """
    from rich.console import Console

    from glassworld.trace.analyzers.ranks import align
    from glassworld.trace.analyzers.ranks import merge as write
    from glassworld.trace.report.terminal import table

    _check_output(output, *traces)
    ranks = align(traces)
    count = write(traces, output, ranks)
    if json:
        print_json(ranks)
        return
    columns = ("rank", "clock offset ms", "collectives", "ms in them", "waited ms")
    rows = [
        (f"{r.rank} {r.path}", r.offset_ms, r.collectives, r.collective_ms, r.waited_ms)
        for r in ranks
    ]
    Console().print(table("9. Who waits for whom?", columns, rows))
    if not all(rank.collectives for rank in ranks):
        typer.echo("No collectives on all ranks: the traces are laid to begin together.")
    typer.echo(f"{count:,} events: {output}")


@app.command(name="open", rich_help_panel=TOOLS)
def open_trace(
    trace: TracePath,
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="The port; Perfetto fetches from 9001 alone.")
    ] = 9001,
    json: Json = False,
) -> None:
    """Serve a trace on loopback for ui.perfetto.dev, once, and print its address.

    The page fetches the file from this machine; nothing is uploaded. Without a browser here, copy
    the trace to where one is and drop it onto https://ui.perfetto.dev or chrome://tracing.

    Example: `glassworld trace open outputs/profile_trace.json`
    """
    from glassworld.trace.report.perfetto import perfetto_address, serve_once

    address = perfetto_address(trace, port)
    if json:
        import msgspec

        typer.echo(msgspec.json.encode({"url": address}))
    else:
        typer.echo(f"Open {address}\n(serving {trace} until it is fetched; Ctrl+C stops)")
    serve_once(trace, port)


def _check_output(written: Path, *others: Path) -> None:
    """Raise `InputError` before the work if a file cannot be written, or would replace another."""
    if any(written.resolve() == other.resolve() for other in others):
        raise InputError(
            f"{written}: is read or written by this command already; name another file"
        )
    if written.is_dir():
        raise InputError(f"{written}: is a folder; name the file to write")
    if not written.parent.is_dir():
        raise InputError(f"{written}: the folder {written.parent} does not exist; make it first")
