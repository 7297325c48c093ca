"""The commands that hand a trace to others: viewers, files, SQL and agents."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from glassworld.trace.cli.options import (
    TOOLS,
    Json,
    Most,
    TracePath,
    check_output,
    row_limit,
    say_losses,
)

app = typer.Typer()


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
        check_output(written, trace)
    say_losses(trace, export_trace(trace, written, format.value).losses)
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
    from glassworld.trace.timeline.merged import analyze_at_once
    from glassworld.trace.writing.sql import query_trace

    limit = row_limit(most, json)
    analysis = analyze_at_once(trace)
    say_losses(trace, analysis.trace.losses)
    answer = query_trace(analysis, query, limit)
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
