"""The commands of `glassworld trace`. Heavy imports wait until a command runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glassworld.errors import InputError

if TYPE_CHECKING:
    from glassworld.trace.report.sections import Section
    from glassworld.trace.timeline.analysis import Analysis

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Read a trace; see where the time went and what to do about it. Works on any JSON that "
    "torch.profiler exports (any vendor's GPU or none), and on files of Nsight Systems, rocprofv3, "
    "JAX and Perfetto.",
    epilog="**Start here:** `glassworld trace report outputs/profile_trace.json` shows "
    "everything at once. Every other command shows one part of it and takes `--json`.",
)

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


class ExportFormat(StrEnum):
    """The formats that `trace export` writes."""

    PERFETTO = "perfetto"
    SPEEDSCOPE = "speedscope"
    FOLDED = "folded"
    PARQUET = "parquet"


SUFFIXES = {
    ExportFormat.PERFETTO: ".pftrace",
    ExportFormat.SPEEDSCOPE: ".speedscope.json",
    ExportFormat.FOLDED: ".folded.txt",
    ExportFormat.PARQUET: ".parquet",
}
"""What replaces the suffix of a trace in the name of its export."""

ROWS = 25
Most = Annotated[
    int | None,
    typer.Option(
        "-n", "--most", min=1, help="Number of rows.", show_default=f"{ROWS}, with --json all"
    ),
]


@app.command("report")
def report_command(
    trace: TracePath,
    html: Annotated[
        Path | None,
        typer.Option(help="Where to write the page. Default: beside the trace."),
    ] = None,
    json: Annotated[
        Path | None, typer.Option(help="Write the whole analysis to this JSON file.")
    ] = None,
    graph_capture: GraphCapture = None,
) -> None:
    """Show the whole analysis of a trace in the terminal, and write it as one offline page.

    Example: `glassworld trace report outputs/profile_trace.json --json analysis.json`
    """
    from rich.console import Console

    from glassworld.trace.report.html.page import page_path, write_page
    from glassworld.trace.report.json_export import write_json
    from glassworld.trace.report.terminal import show_report

    page = html or page_path(trace)
    _check_output(page, trace)
    if json:
        _check_output(json, trace, page)
    analysis = _load(trace, graph_capture=graph_capture)
    write_page(page, analysis)  # first: somebody reading in a pager may leave it early
    if json:
        write_json(json, analysis)
    console = Console()
    show_report(console, analysis)
    console.print()
    if json:
        console.print(f"Analysis: {json}", soft_wrap=True, markup=False)
    console.print(f"Report: {page}", soft_wrap=True, markup=False)


@app.command("top")
def top_command(
    trace: TracePath,
    most: Most = None,
    tags_only: TagsOnly = False,
    graph_capture: GraphCapture = None,
    json: Json = False,
) -> None:
    """Show the slowest tags by self time, and what is slow where tags do not explain a run.

    Example: `glassworld trace top outputs/profile_trace.json -n 5`
    """
    from glassworld.trace.analyzers.execution import tags_explain
    from glassworld.trace.report.sections import SLOWEST, section

    analysis = _load(trace, tags_only, graph_capture)
    rows = _row_limit(most, json)
    tags = bool(SLOWEST.rows(analysis))
    if tags or tags_only:
        _show(SLOWEST, analysis, json, rows)
    if not tags_only and (not tags or not (json or tags_explain(analysis))):
        _show(section("slowest"), analysis, json, rows)


@app.command("advice", rich_help_panel=PARTS)
def advice_command(
    trace: TracePath, graph_capture: GraphCapture = None, json: Json = False
) -> None:
    """Show what to change, with the evidence.

    Each finding has the tag, the number, its threshold, the change and the most it can gain.
    An empty list is a good result.

    Example: `glassworld trace advice outputs/profile_trace.json`
    """
    from rich.console import Console

    from glassworld.trace.report.terminal import show_findings
    from glassworld.trace.rules.rule import advise

    findings = advise(_load(trace, graph_capture=graph_capture))
    if json:
        _print_json(findings)
    else:
        show_findings(Console(), findings)


SECTION_HELP = {
    "stages": """Show the time of each stage.

    The stages of a run, or the outermost tags of another program: time and share.""",
    "slowest": """Show what is slow by modules or operators.

    Modules of the Python stacks by self time; without any, operators, or kernels.""",
    "blocks": """Show the time of each block and its parts.

    Steps, encoding, update and decode of each block. Outliers and drift are named.""",
    "steps": """Compare the denoising steps.

    Each step over all blocks; whether the first is slower, by how much and why.""",
    "training": """Show the forward pass, backward pass and optimizer of each training step.

    CPU time, GPU busy and idle time of each; the three parts add up to the step.""",
    "serving": """Show the steps of a serving engine.

    The steps of vLLM and SGLang by kind: prefill, decode or both. Outliers are marked.""",
    "model": """Show the parts of the diffusion model.

    Embeddings, the kinds of attention, feed-forward and head: time and share.""",
    "decoder": """Show the parts of the VAE decoder.

    Conv1, middle, upsampling and head, over all frames.""",
    "update": """Show the cost of the KV-cache update.

    It is one more pass of the network after the denoising steps of each block.""",
    "expected": """Compare measured with expected times.

    Expected times follow from the run's configuration and this machine's peak rates
    (`glassworld bench peak-rates`). The reference breakdown (50 steps) stands beside them.""",
    "roofline": """Show how close each tag comes to the machine's peak rates.

    FLOP/s reached, FLOPs per byte, and the FLOP/s attainable at that intensity.""",
    "memory": """Show the memory of each tag.

    The peak while it ran, and what it left allocated, from the allocator's own record.""",
}
"""The help of the commands that print one section of the report."""


def _add_section_command(name: str) -> None:
    def command(trace: TracePath, graph_capture: GraphCapture = None, json: Json = False) -> None:
        from glassworld.trace.report.sections import section

        _show(section(name), _load(trace, graph_capture=graph_capture), json)

    example = f"\n\n    Example: `glassworld trace {name} outputs/profile_trace.json`"
    app.command(name, help=SECTION_HELP[name] + example, rich_help_panel=PARTS)(command)


for _name in ("stages", "slowest", "blocks", "steps", "training", "serving", "model"):
    _add_section_command(_name)


@app.command("ops", rich_help_panel=PARTS)
def operators_command(
    trace: TracePath,
    tag: TagName = None,
    most: Most = None,
    graph_capture: GraphCapture = None,
    json: Json = False,
) -> None:
    """Show the operators that a tag calls.

    Calls, CPU and GPU time. Shares count only calls that no other operator made, so they add up.

    Example: `glassworld trace ops outputs/profile_trace.json DiT_Self_Attention`
    """
    from glassworld.trace.analyzers.operators import launched_by_operators, operator_rows
    from glassworld.trace.report.sections import section

    shown = replace(
        section("ops"),
        title=f"Operators of {tag or 'the whole trace'}",
        rows=lambda analysis: operator_rows(analysis, tag),
        remarks=lambda analysis: launched_by_operators(analysis, tag),
    )
    _show(shown, _load(trace, graph_capture=graph_capture), json, _row_limit(most, json))


@app.command("kernels", rich_help_panel=PARTS)
def kernels_command(
    trace: TracePath,
    tag: TagName = None,
    most: Most = None,
    graph_capture: GraphCapture = None,
    json: Json = False,
) -> None:
    """Show the kernels that a tag runs on the GPU.

    Kernels, copies and fills by name, each with the sum of its durations.

    Example: `glassworld trace kernels outputs/profile_trace.json VAE_Decode`
    """
    from glassworld.trace.analyzers.operators import kernel_rows
    from glassworld.trace.report.sections import section

    shown = replace(
        section("kernels"),
        title=f"GPU kernels of {tag or 'the whole trace'}",
        rows=lambda analysis: kernel_rows(analysis, tag),
    )
    _show(shown, _load(trace, graph_capture=graph_capture), json, _row_limit(most, json))


for _name in ("decoder", "update", "expected", "roofline"):
    _add_section_command(_name)


@app.command("gaps", rich_help_panel=PARTS)
def gaps_command(
    trace: TracePath,
    most: Most = None,
    graph_capture: GraphCapture = None,
    json: Json = False,
) -> None:
    """Show where the GPU idles, and what the CPU did meanwhile.

    The longest gaps without GPU work, and what the CPU did until the launch that ended each.

    Example: `glassworld trace gaps outputs/profile_trace.json -n 5`
    """
    from glassworld.trace.report.sections import section

    shown = section("gaps")
    _show(shown, _load(trace, graph_capture=graph_capture), json, _row_limit(most, json))


_add_section_command("memory")


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
    json: Json = False,
) -> None:
    """Show what changed between two runs, tag by tag, with the noise.

    Either may be the name of a baseline: see `glassworld trace baseline`.

    A tag is called slower only if its median moved by more than three standard errors, which are
    estimated from its repeated instances.

    Example: `glassworld trace compare before.json after.json --fail-over 5%`
    """
    from rich.console import Console

    from glassworld.trace.analyzers.compare import compare_runs
    from glassworld.trace.report.markdown import comparison_markdown
    from glassworld.trace.report.terminal import show_comparison
    from glassworld.trace.writing.baselines import trace_or_baseline

    share = _share(fail_over) if fail_over is not None else None
    comparison = compare_runs(*(_load(trace_or_baseline(path)) for path in (before, after)))
    if json:
        _print_json(comparison.changes)
    elif markdown:
        typer.echo(comparison_markdown(comparison))
    else:
        show_comparison(Console(), comparison)
    worse = comparison.regressions(share) if share is not None else []
    if worse:
        names = ", ".join(list(dict.fromkeys(change.path[-1] for change in worse))[:5])
        typer.echo(f"slower by more than {fail_over}: {names}", err=True)
        raise typer.Exit(1)


@app.command("baseline", rich_help_panel=TOOLS)
def baseline_command(
    name: Annotated[
        str | None, typer.Argument(help="The name, such as main. Default: list all.")
    ] = None,
    trace: Annotated[Path | None, typer.Argument(help="The trace to keep a copy of.")] = None,
) -> None:
    """Keep a trace under a name, to compare later runs with; or list the names.

    Example: `glassworld trace baseline main trace.json`, then
    `glassworld trace compare main new.json --markdown`
    """
    from glassworld.trace.writing.baselines import baseline_names, keep_trace

    if name is None:
        typer.echo("\n".join(baseline_names()) or "There are no baselines.")
    elif trace is None:
        raise InputError(f"{name}: name the trace to keep as this baseline, after its name")
    else:
        typer.echo(f"Kept as {name}: {keep_trace(name, trace)}")


def _share(text: str) -> float:
    try:
        value = float(text.rstrip("% ")) / 100
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise InputError(f"--fail-over {text}: must be a percentage such as 5%")
    return value


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
    from glassworld.trace.report.terminal import table

    _check_output(output, *traces)
    ranks = align_ranks(traces)
    count = merge_ranks(traces, output, ranks)
    if json:
        _print_json(ranks)
        return
    columns = ("rank", "clock offset ms", "collectives", "ms in them", "waited ms")
    rows = [
        (f"{r.rank} {r.path}", r.offset_ms, r.collectives, r.collective_ms, r.waited_ms)
        for r in ranks
    ]
    Console().print(table("Waits between ranks", columns, rows))
    if not all(rank.collectives for rank in ranks):
        typer.echo("Not all ranks have collectives: the merged traces start at the same time.")
    typer.echo(f"{count:,} events: {output}")


@app.command("open", rich_help_panel=TOOLS)
def open_command(
    trace: TracePath,
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="The port. Perfetto fetches only from 9001.")
    ] = 9001,
    json: Json = False,
) -> None:
    """Serve a trace on loopback for ui.perfetto.dev, once, and print its address.

    The page fetches the file from this machine; nothing is uploaded. If this machine has no
    browser, copy the trace to one that has, and drop it onto https://ui.perfetto.dev or
    chrome://tracing.

    Example: `glassworld trace open outputs/profile_trace.json`
    """
    import msgspec

    from glassworld.trace.report.perfetto import perfetto_address, serve_once

    address = perfetto_address(trace, port)
    if json:
        typer.echo(msgspec.json.encode({"url": address}))
    else:
        typer.echo(f"Open {address}\n(serving {trace} until it is fetched; Ctrl+C stops)")
    serve_once(trace, port)


@app.command("export", rich_help_panel=TOOLS)
def export_command(
    trace: TracePath,
    format: Annotated[
        ExportFormat,
        typer.Option("--format", "-f", help="The format to write; parquet makes a folder."),
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Where to write. Default: beside it.")
    ] = None,
) -> None:
    """Write a trace for another viewer, as folded stacks, or as tables.

    `perfetto` has a track per level of tags and counters of memory. `folded` holds the GPU's busy
    time by tags and kernels (without a GPU: CPU self time), for flame graphs. `parquet` holds the
    tables that `trace sql` queries.

    Example: `glassworld trace export trace.json --format speedscope`
    """
    from glassworld.trace.writing.export import export_trace

    written = output or trace.with_name(trace.name.partition(".")[0] + SUFFIXES[format])
    if format is not ExportFormat.PARQUET:
        _check_output(written, trace)
    export_trace(trace, written, format.value)
    typer.echo(f"Wrote {written}")


@app.command("sql", rich_help_panel=TOOLS)
def sql_command(
    trace: TracePath,
    query: Annotated[str, typer.Argument(help="SQL, in DuckDB's dialect.")],
    most: Most = None,
    json: Json = False,
) -> None:
    """Answer SQL over the tables of a trace. Needs `pip install 'glassworld[sql]'`.

    The tables are tags, gpu_operations, operators, launches, python_functions and memory; times
    are nanoseconds from the first event. `DESCRIBE tags` lists the columns.

    Example: `glassworld trace sql trace.json "SELECT name, sum(dur_ns) FROM operators GROUP BY 1"`
    """
    import msgspec
    from rich.console import Console

    from glassworld.trace.report.terminal import table
    from glassworld.trace.writing.export import analyze_whole
    from glassworld.trace.writing.sql import query_trace

    limit = _row_limit(most, json)
    answer = query_trace(analyze_whole(trace), query, limit)
    if json:
        rows = [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]
        typer.echo(msgspec.json.encode(rows, enc_hook=str))
        return
    cells = [
        [value if isinstance(value, int | float) else f"{value}" for value in row]
        for row in answer.rows
    ]
    Console().print(table("", answer.columns, cells))
    if answer.more:
        typer.echo(f"There are more than {limit} rows: set their number with -n.")


@app.command("mcp", rich_help_panel=TOOLS)
def mcp_command() -> None:
    """Serve the analysis to an agent over standard input and output (MCP).

    Needs `pip install 'glassworld[mcp,sql]'`. Answers have at most 200 rows.

    Example, in an agent's configuration: `"command": "glassworld", "args": ["trace", "mcp"]`
    """
    from glassworld.trace.mcp_server import build_server

    build_server().run("stdio")


def _load(path: Path, tags_only: bool = False, graph_capture: Path | None = None) -> Analysis:
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


def _print_json(rows: Sequence[Any]) -> None:
    """Print result rows (dataclasses) as one JSON list."""
    import msgspec

    from glassworld.trace.report.json_export import rows_json

    typer.echo(msgspec.json.encode(rows_json(rows)))


def _show(section: Section, analysis: Analysis, as_json: bool, most: int | None = None) -> None:
    """Print a section of the report: as JSON, or as a table of at most `most` rows."""
    from rich.console import Console

    from glassworld.trace.report.terminal import show_section

    if as_json:
        _print_json(section.rows(analysis)[:most])
    elif not show_section(Console(), section, analysis, most, "with -n"):
        Console().print(f"{section.title}: {section.missing}.", markup=False)


def _row_limit(most: int | None, as_json: bool) -> int | None:
    """Return the most rows to print: by default all as JSON, few in a table."""
    return most or (None if as_json else ROWS)


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
