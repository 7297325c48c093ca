"""The commands that show the analysis of one trace: all of it, or one section."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from glassworld.trace.cli.options import (
    PARTS,
    GraphCapture,
    Json,
    Most,
    TagName,
    TagsOnly,
    TracePath,
    check_output,
    load_analysis,
    load_with_progress,
    print_json,
    print_json_object,
    print_section,
    row_limit,
    say_losses,
)

app = typer.Typer()


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
    check_output(page, trace)
    if json:
        check_output(json, trace, page)
    analysis = load_with_progress(trace, graph_capture=graph_capture)
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

    analysis = load_analysis(trace, tags_only, graph_capture)
    rows = row_limit(most, json)
    tags = bool(SLOWEST.rows(analysis))
    if tags or tags_only:
        print_section(SLOWEST, analysis, json, rows)
    if not tags_only and (not tags or not (json or tags_explain(analysis))):
        print_section(section("slowest"), analysis, json, rows)


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

    findings = advise(load_analysis(trace, graph_capture=graph_capture))
    if json:
        print_json(findings)
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
    "compiled": """Show the compiled regions.

    What torch.compile made, by region and tag: runs, CPU time, and the GPU time launched in it.""",
    "fused": """Show what Inductor fused.

    Its kernels by the operators in their names and by their region: kind, calls and time.""",
    "decoder": """Show the parts of the VAE decoder.

    Conv1, middle, upsampling and head, over all frames.""",
    "update": """Show the cost of the KV-cache update.

    It is one more pass of the network after the denoising steps of each block.""",
    "expected": """Compare measured with expected times.

    Expected times follow from the run's configuration and this machine's peak rates
    (`glassworld bench peak-rates`). The reference breakdown (50 steps) stands beside them.""",
    "memory": """Show the memory of each tag.

    The peak while it ran, and what it left allocated, from the allocator's own record.""",
}
"""The help of the commands that print one section of the report."""


def _add_section_command(name: str) -> None:
    def command(trace: TracePath, graph_capture: GraphCapture = None, json: Json = False) -> None:
        from glassworld.trace.report.sections import section

        print_section(section(name), load_analysis(trace, graph_capture=graph_capture), json)

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
    print_section(
        shown, load_analysis(trace, graph_capture=graph_capture), json, row_limit(most, json)
    )


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
    print_section(
        shown, load_analysis(trace, graph_capture=graph_capture), json, row_limit(most, json)
    )


for _name in ("compiled", "fused", "decoder", "update", "expected"):
    _add_section_command(_name)


@app.command("roofline", rich_help_panel=PARTS)
def roofline_command(
    trace: TracePath,
    by_shape: Annotated[
        bool,
        typer.Option(
            "--by-shape",
            help="Show operators by the shapes of their inputs, as `record_shapes=True` records "
            "them in any program.",
        ),
    ] = False,
    most: Most = None,
    graph_capture: GraphCapture = None,
    json: Json = False,
) -> None:
    """Show how close each tag comes to the machine's peak rates.

    FLOP/s reached, FLOPs per byte, and the FLOP/s attainable at that intensity. With `--by-shape`,
    matmuls, convolutions and attention of any program, and how much of the time they are.

    Example: `glassworld trace roofline trace.json --by-shape`
    """
    from glassworld.trace.analyzers.operator_roofline.by_shape import roofline_by_shape
    from glassworld.trace.report.sections import section

    analysis, rows = load_analysis(trace, graph_capture=graph_capture), row_limit(most, json)
    if not by_shape:
        print_section(section("roofline"), analysis, json, rows)
    elif json:
        roofline = roofline_by_shape(analysis)
        print_json_object(replace(roofline, groups=roofline.groups[:rows]))
    else:
        print_section(section("roofline --by-shape"), analysis, json, rows)


@app.command("critical-path", rich_help_panel=PARTS)
def critical_path_command(
    trace: TracePath,
    faster: Annotated[
        list[str] | None,
        typer.Option(
            "--faster",
            metavar="TAG=FACTOR",
            help="Compute the run in which this tag, with all inside it, takes FACTOR times its "
            "time. Give it again for other tags.",
        ),
    ] = None,
    most: Most = None,
    graph_capture: GraphCapture = None,
    json: Json = False,
) -> None:
    """Show the chain of work and waits that bounds the run, and what a faster tag would gain.

    CPU work, launches, GPU work and synchronization; the run is computed again with half the
    time of each tag. Holds the whole trace in memory.

    Example: `glassworld trace critical-path trace.json --faster VAE_Decode=0.5`
    """
    from rich.console import Console

    from glassworld.trace.analyzers.critical_path import PathFinder, parse_factor
    from glassworld.trace.report.terminal import show_critical_path
    from glassworld.trace.timeline.merged import analyze_at_once

    factors = [parse_factor(text) for text in faster or ()]
    analysis = analyze_at_once(trace, graph_capture)
    say_losses(trace, analysis.trace.losses)
    path = PathFinder(analysis).critical_path(factors)
    if json:
        print_json_object(path)
    else:
        show_critical_path(Console(), path, row_limit(most, json))


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
    print_section(
        shown, load_analysis(trace, graph_capture=graph_capture), json, row_limit(most, json)
    )


_add_section_command("memory")
