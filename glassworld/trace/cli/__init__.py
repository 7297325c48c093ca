"""The commands of `glassworld trace`. Heavy imports wait until a command runs."""

from __future__ import annotations

import typer

from glassworld.trace.cli import baselines, comparison, export, report

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Read a trace; see where the time went and what to do about it. Works on any JSON that "
    "torch.profiler exports (any vendor's GPU or none), and on files of Nsight Systems, rocprofv3, "
    "JAX and Perfetto.",
    epilog="**Start here:** `glassworld trace report outputs/profile_trace.json` shows "
    "everything at once. Every other command shows one part of it and takes `--json`.",
)

for _commands in (report.app, comparison.app, baselines.app, export.app):  # the order of the help
    app.add_typer(_commands)
