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
    rich_markup_mode="markdown",
    help="Read a torch trace and say where the time went, and what to do about it. "
    "Any JSON that torch.profiler exports will do: any vendor's GPU or none, plain or gzip.",
    epilog="**Start here:** `glassworld trace report outputs/profile_trace.json` answers "
    "everything at once. Every other command is one part of it, and takes `--json`.",
)

QUESTIONS, TOOLS = "The questions, one by one", "Several traces, other viewers"

TracePath = Annotated[Path, typer.Argument(help="A trace: .json or .json.gz from torch.profiler.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
TagsOnly = Annotated[
    bool, typer.Option("--tags-only", help="Read the tags alone: faster; no operators, no GPU.")
]
Most = Annotated[int, typer.Option("-n", "--most", min=1, help="How many rows to show.")]

ANSWERS = {
    "stages": """1. Which stage is the slowest?

    The four stages of a run, or the outermost tags of another program: time and share.""",
    "blocks": """2. How long does each block take, and of what?

    Steps, encoding, update and decode of each block; outliers and drift are named.""",
    "steps": """3. How do the denoising steps compare?

    Each step over all blocks; whether the first is slower, by how much and why.""",
    "model": """4. What is the diffusion model made of?

    Embeddings, the kinds of attention, feed-forward and head: time and share.""",
    "decoder": """5. Where does the VAE decoder spend its time?

    Conv1, middle, upsampling and head, over all frames.""",
    "update": """6. What does the KV-cache update cost?

    It is one more pass of the network after the denoising steps of each block.""",
    "expected": """7. Where does the time go, against what should be expected?

    Measured times beside those that follow from the run's configuration at this machine's
    ceilings (`glassworld bench ceilings`), and beside the original guide's table.""",
    "roofline": """7. How close to the machine's roof is each tag?

    FLOP/s reached, FLOPs per byte, and what the ceilings would allow at that intensity.""",
    "memory": """9. What does each tag hold in memory?

    The peak while it ran, and what it left allocated, by the allocator's own record.""",
}
"""The commands that answer one question with one table."""


def load(path: Path, tags_only: bool = False) -> Analysis:
    """Analyse with a progress bar on stderr where the file is large."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress

    from glassworld.trace.analysis import analyze

    size = path.stat().st_size if path.is_file() else 0
    if size < 64 << 20:
        return analyze(path, tags_only=tags_only)
    whole = size * (12 if path.suffix == ".gz" else 1)  # traces compress about twelvefold
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(escape(f"Reading {path.name}"), total=whole)
        return analyze(path, lambda read: progress.update(task, completed=read), tags_only)


def answer(as_json: bool, rows: Sequence[Any], table: Table, empty: str) -> None:
    """Print result rows as JSON or as a table; `empty` says why there are none."""
    from rich.console import Console

    if as_json:
        print_json(rows)
    elif rows:
        Console().print(table)
    else:
        Console().print(empty, markup=False)


def print_json(rows: Sequence[Any]) -> None:
    """Print result rows (dataclasses) as one JSON list."""
    import msgspec

    from glassworld.trace.export import rows_json

    typer.echo(msgspec.json.encode(rows_json(rows)))


def show_question(name: str, analysis: Analysis, as_json: bool, most: int = 1000) -> None:
    """Print the answer to the question of that name."""
    from rich.console import Console

    from glassworld.trace.terminal import show_answer
    from glassworld.trace.views import question

    asked = question(name)
    if as_json:
        print_json(asked.rows(analysis)[:most])
    elif not show_answer(Console(), asked, analysis, most):
        Console().print(f"{asked.title} {asked.missing}.", markup=False)


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

    from glassworld.trace.export import analysis_json, write_json
    from glassworld.trace.page import page_path, write_page
    from glassworld.trace.terminal import show

    analysis = load(trace)
    console = Console()
    show(console, analysis)
    console.print()
    if json:
        write_json(json, analysis_json(analysis))
        console.print(f"Analysis: {json}", soft_wrap=True, markup=False)
    page = html or page_path(trace)
    write_page(page, analysis)
    console.print(f"Report: {page}", soft_wrap=True, markup=False)


@app.command()
def top(trace: TracePath, most: Most = 15, tags_only: TagsOnly = False, json: Json = False) -> None:
    """The slowest tags, by the time outside the tags inside them.

    Example: `glassworld trace top outputs/profile_trace.json -n 5`
    """
    from glassworld.trace.questions import top as slowest
    from glassworld.trace.terminal import tags_table

    rows = slowest(load(trace, tags_only), most)
    answer(json, rows, tags_table(rows), "No tags in this trace; see `glassworld trace ops`.")


def _register(name: str, teaches: str) -> None:
    def command(trace: TracePath, json: Json = False) -> None:
        show_question(name, load(trace), json)

    example = f"\n\n    Example: `glassworld trace {name} outputs/profile_trace.json`"
    app.command(name=name, help=teaches + example, rich_help_panel=QUESTIONS)(command)


for _name, _teaches in ANSWERS.items():
    _register(_name, _teaches)


@app.command(rich_help_panel=QUESTIONS)
def ops(
    trace: TracePath,
    tag: Annotated[
        str | None, typer.Argument(help="A tag's name or part of it; the whole trace if left out.")
    ] = None,
    most: Most = 25,
    json: Json = False,
) -> None:
    """4. Which operators does a tag call?

    Calls, CPU and GPU time; shares count only calls that no other operator made, so they add up.

    Example: `glassworld trace ops outputs/profile_trace.json DiT_Self_Attention`
    """
    from glassworld.trace.optable import operator_rows
    from glassworld.trace.terminal import table
    from glassworld.trace.views import question

    rows = operator_rows(load(trace), tag)
    asked = question("ops")
    title = f"Operators under {tag}" if tag else "Operators of the whole trace"
    made = table(title, asked.columns, map(asked.cells, rows[:most]))
    answer(json, rows, made, "No operators here (a tags-only trace?).")


@app.command(rich_help_panel=QUESTIONS)
def kernels(
    trace: TracePath,
    tag: Annotated[
        str | None, typer.Argument(help="A tag's name or part of it; the whole trace if left out.")
    ] = None,
    most: Most = 25,
    json: Json = False,
) -> None:
    """4. Which kernels does a tag run on the GPU?

    Kernels, copies and fills by name, each with the sum of its durations.

    Example: `glassworld trace kernels outputs/profile_trace.json VAE_Decode`
    """
    from glassworld.trace.optable import kernel_rows
    from glassworld.trace.terminal import table
    from glassworld.trace.views import question

    rows = kernel_rows(load(trace), tag)
    asked = question("kernels")
    title = f"Kernels under {tag}" if tag else "Kernels of the whole trace"
    made = table(title, asked.columns, map(asked.cells, rows[:most]))
    answer(json, rows, made, "No GPU operations here.")


@app.command(rich_help_panel=QUESTIONS)
def advice(trace: TracePath, json: Json = False) -> None:
    """8. What should I do about it?

    Findings, each with the tag, the number, the threshold, the change and the gain at most.
    An empty list is a fine answer.

    Example: `glassworld trace advice outputs/profile_trace.json`
    """
    from rich.console import Console

    from glassworld.trace.advice import advise
    from glassworld.trace.terminal import show_advice

    findings = advise(load(trace))
    if json:
        print_json(findings)
    else:
        show_advice(Console(), findings)


@app.command(rich_help_panel=QUESTIONS)
def gaps(trace: TracePath, most: Most = 20, json: Json = False) -> None:
    """9. Where does the GPU idle, and who is to blame?

    The longest stretches without GPU work, and what the CPU did until the launch that ended each.

    Example: `glassworld trace gaps outputs/profile_trace.json -n 5`
    """
    show_question("gaps", load(trace), json, most)


@app.command(rich_help_panel=TOOLS)
def compare(
    before: TracePath,
    after: TracePath,
    fail_over: Annotated[
        str | None, typer.Option(help="Exit with 1 if a tag became slower by more, e.g. 5%.")
    ] = None,
    json: Json = False,
) -> None:
    """9. What changed between two runs, tag by tag, with the noise.

    A tag is called slower only if its median moved by more than three standard errors, which are
    estimated from its repeated instances.

    Example: `glassworld trace compare before.json after.json --fail-over 5%`
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
                console.print(f"only {where}: {', '.join(only)}", style="dim", markup=False)
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
    """9. Put the traces of several ranks on one clock, and say who waits for whom.

    Example: `glassworld trace merge rank0.json rank1.json -o both.json`
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


@app.command(name="open", rich_help_panel=TOOLS)
def open_trace(
    trace: TracePath,
    port: Annotated[int, typer.Option(help="The port Perfetto may fetch from.")] = 9001,
    json: Json = False,
) -> None:
    """Serve a trace on loopback for ui.perfetto.dev, once, and print its address.

    The page fetches the file from this machine; nothing is uploaded. Without a browser here, copy
    the trace to where one is and drop it onto https://ui.perfetto.dev or chrome://tracing.

    Example: `glassworld trace open outputs/profile_trace.json`
    """
    from glassworld.trace.serve import perfetto_address, serve_once

    address = perfetto_address(trace, port)
    if json:
        import msgspec

        typer.echo(msgspec.json.encode({"url": address}))
    else:
        typer.echo(f"Open {address}\n(serving {trace} until it is fetched; Ctrl+C stops)")
    serve_once(trace, port)
