"""The commands that take several traces: comparison and ranks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glassworld.errors import InputError
from glassworld.trace.cli.options import (
    TOOLS,
    Json,
    TracePath,
    check_output,
    load_analysis,
    print_json,
    print_json_object,
    say_losses,
)

if TYPE_CHECKING:
    from rich.table import Table

    from glassworld.trace.analyzers.ranks import RankTiming

app = typer.Typer()


@app.command("compare", rich_help_panel=TOOLS)
def compare_command(
    before: TracePath,
    after: TracePath,
    fail_over: Annotated[
        str | None, typer.Option(help="Exit with 1 if a tag became slower by more, e.g. 5%.")
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print Markdown for a pull request.")
    ] = False,
    structure: Annotated[
        bool,
        typer.Option(
            "--structure", help="Align runs with other names, other hardware or other versions."
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Show what changed between two runs, tag by tag, with the noise.

    Either may be the name of a baseline: see `glassworld trace baseline`.

    A tag is called slower only if its median moved by more than three standard errors, which are
    estimated from its repeated instances.

    With `--structure`, parts with other names are paired by what they hold, how often they run and
    their share of the time; what was moved, inserted or removed is shown as such.

    Example: `glassworld trace compare before.json after.json --fail-over 5%`
    """
    from rich.console import Console

    from glassworld.trace.analyzers.compare import compare_runs
    from glassworld.trace.report.markdown import comparison_markdown
    from glassworld.trace.report.terminal import show_comparison
    from glassworld.trace.writing.baselines import trace_or_baseline

    if structure:
        if fail_over is not None:
            raise InputError("--structure: leave out --fail-over beside it")
        _compare_structure(before, after, markdown, json)
        return
    share = _share(fail_over) if fail_over is not None else None
    comparison = compare_runs(*(load_analysis(trace_or_baseline(path)) for path in (before, after)))
    if json:
        print_json(comparison.changes)
    elif markdown:
        typer.echo(comparison_markdown(comparison))
    else:
        show_comparison(Console(), comparison)
        if len(comparison.changes) < len(comparison.only_before) + len(comparison.only_after):
            typer.echo("Few tags are in both: --structure pairs those with other names.")
    worse = comparison.regressions(share) if share is not None else []
    if worse:
        names = ", ".join(list(dict.fromkeys(change.path[-1] for change in worse))[:5])
        typer.echo(f"slower by more than {fail_over}: {names}", err=True)
        raise typer.Exit(1)


def _compare_structure(before: Path, after: Path, markdown: bool, json: bool) -> None:
    from rich.console import Console

    from glassworld.trace.analyzers.structure.structural_diff import compare_structure
    from glassworld.trace.report.markdown import structure_markdown
    from glassworld.trace.report.structure import show_structure
    from glassworld.trace.writing.baselines import trace_or_baseline

    diff = compare_structure(*(load_analysis(trace_or_baseline(path)) for path in (before, after)))
    if json:
        print_json_object(diff)
    elif markdown:
        typer.echo(structure_markdown(diff))
    else:
        show_structure(Console(), diff)


def _share(text: str) -> float:
    try:
        value = float(text.rstrip("% ")) / 100
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise InputError(f"--fail-over {text}: must be a percentage such as 5%")
    return value


def _waits_table(ranks: list[RankTiming]) -> Table:
    """Return the table of the time that each rank waited for slower ones."""
    from glassworld.trace.report.terminal import table

    columns = ("rank", "clock offset ms", "collectives", "ms in them", "waited ms")
    rows = [
        (f"{r.rank} {r.path}", r.offset_ms, r.collectives, r.collective_ms, r.waited_ms)
        for r in ranks
    ]
    return table("Waits between ranks", columns, rows)


def _say_without_collectives(ranks: list[RankTiming]) -> None:
    """Say how clocks were put together where collectives do not tell it."""
    if not all(rank.collectives for rank in ranks):
        typer.echo(
            "Not all ranks have collectives (on a GPU, or of gloo): without any, traces start at "
            "the same time."
        )


@app.command("merge", rich_help_panel=TOOLS)
def merge_command(
    traces: Annotated[list[Path], typer.Argument(help="One trace per rank, rank 0 first.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The trace to write.")] = Path(
        "merged_trace.json"
    ),
    json: Json = False,
) -> None:
    """Merge the traces of several ranks on one clock, and show which rank waits.

    Example: `glassworld trace merge rank0.json rank1.json -o both.json`
    """
    from rich.console import Console

    from glassworld.trace.analyzers.ranks import align_ranks, merge_ranks

    check_output(output, *traces)
    ranks = align_ranks(traces)
    for rank in ranks:
        say_losses(rank.path, (*rank.losses, *rank.notes))
    count = merge_ranks(traces, output, ranks)
    if json:
        print_json(ranks)
        return
    Console().print(_waits_table(ranks))
    _say_without_collectives(ranks)
    typer.echo(f"{count:,} events: {output}")


@app.command("ranks", rich_help_panel=TOOLS)
def ranks_command(
    traces: Annotated[list[Path], typer.Argument(help="One trace per rank, rank 0 first.")],
    json: Json = False,
) -> None:
    """Show the bandwidth of each collective, its skew, and which rank comes last.

    Bandwidths as nccl-tests defines them, where the traces record the sizes of messages; and the
    tag that makes a rank late.

    Example: `glassworld trace ranks rank0.json rank1.json rank2.json rank3.json`
    """
    from rich.console import Console

    from glassworld.trace.analyzers.ranks import report_ranks
    from glassworld.trace.report.terminal import table

    report = report_ranks(traces)
    for rank in report.ranks:
        say_losses(rank.path, (*rank.losses, *rank.notes))
    if json:
        print_json_object(report)
        return
    console = Console()
    console.print(_waits_table(report.ranks))
    _say_without_collectives(report.ranks)
    if not report.collectives:
        return
    columns = (
        *("collective", "type", "bytes", "ranks", "calls", "ms"),
        *("algorithm\nGB/s", "bus\nGB/s", "skew\nms", "largest"),
    )
    rows = [
        (
            *(c.name, c.dtype or "-", c.bytes, c.group_size, c.calls, c.ms),
            *(c.algorithm_gbps, c.bus_gbps, c.mean_skew_ms, c.max_skew_ms),
        )
        for c in report.collectives
    ]
    console.print(table("Collectives", columns, rows))
    late = [
        (f"{s.rank}", s.last, s.collectives, s.alone_ms, s.tag or "-", s.where, s.more_ms)
        for s in report.stragglers
    ]
    head = ("rank", "last", "of", "others\nwaited ms", "tag that took more", "on", "more ms")
    console.print(table("Ranks that come last", head, late))
