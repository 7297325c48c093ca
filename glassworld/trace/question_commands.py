"""The commands that answer one question each. Heavy imports wait until a command runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from glassworld.trace.command_line import (
    Json,
    Most,
    TracePath,
    limit,
    load,
    print_json,
    show_question,
)

app = typer.Typer(rich_markup_mode="markdown")

PANEL = "The questions, one by one"

ANSWERS = {
    "stages": """Which stage is the slowest? (question 1)

    The four stages of a run, or the outermost tags of another program: time and share.""",
    "blocks": """How long does each block take, and of what? (question 2)

    Steps, encoding, update and decode of each block; outliers and drift are named.""",
    "steps": """How do the denoising steps compare? (question 3)

    Each step over all blocks; whether the first is slower, by how much and why.""",
    "model": """What is the diffusion model made of? (question 4)

    Embeddings, the kinds of attention, feed-forward and head: time and share.""",
    "decoder": """Where does the VAE decoder spend its time? (question 5)

    Conv1, middle, upsampling and head, over all frames.""",
    "update": """What does the KV-cache update cost? (question 6)

    It is one more pass of the network after the denoising steps of each block.""",
    "expected": """Where does the time go, against what should be expected? (question 7)

    Measured times beside those that follow from the run's configuration at this machine's
    ceilings (`glassworld bench ceilings`), and beside the original guide's table.""",
    "roofline": """How close to the machine's roof is each tag? (question 7)

    FLOP/s reached, FLOPs per byte, and what the ceilings would allow at that intensity.""",
    "memory": """What does each tag hold in memory? (question 9)

    The peak while it ran, and what it left allocated, by the allocator's own record.""",
}
"""The commands that answer one question with one table."""


def _register(name: str) -> None:
    def command(trace: TracePath, json: Json = False) -> None:
        from glassworld.trace.report.sections import question

        show_question(question(name), load(trace), json)

    example = f"\n\n    Example: `glassworld trace {name} outputs/profile_trace.json`"
    app.command(name=name, help=ANSWERS[name] + example, rich_help_panel=PANEL)(command)


for _name in ("stages", "blocks", "steps", "model"):
    _register(_name)


@app.command(rich_help_panel=PANEL)
def ops(
    trace: TracePath,
    tag: Annotated[
        str | None, typer.Argument(help="A tag's name or part of it; the whole trace if left out.")
    ] = None,
    most: Most = None,
    json: Json = False,
) -> None:
    """Which operators does a tag call? (question 4)

    Calls, CPU and GPU time; shares count only calls that no other operator made, so they add up.

    Example: `glassworld trace ops outputs/profile_trace.json DiT_Self_Attention`
    """
    from glassworld.trace.analyzers.operators import launched_by_operators, operator_rows
    from glassworld.trace.report.sections import question

    asked = replace(
        question("ops"),
        title=f"Which operators does {tag or 'the whole trace'} call?",
        rows=lambda analysis: operator_rows(analysis, tag),
        remarks=lambda analysis: launched_by_operators(analysis, tag),
    )
    show_question(asked, load(trace), json, limit(most, json))


@app.command(rich_help_panel=PANEL)
def kernels(
    trace: TracePath,
    tag: Annotated[
        str | None, typer.Argument(help="A tag's name or part of it; the whole trace if left out.")
    ] = None,
    most: Most = None,
    json: Json = False,
) -> None:
    """Which kernels does a tag run on the GPU? (question 4)

    Kernels, copies and fills by name, each with the sum of its durations.

    Example: `glassworld trace kernels outputs/profile_trace.json VAE_Decode`
    """
    from glassworld.trace.analyzers.operators import kernel_rows
    from glassworld.trace.report.sections import question

    asked = replace(
        question("kernels"),
        title=f"Which kernels does {tag or 'the whole trace'} run?",
        rows=lambda analysis: kernel_rows(analysis, tag),
    )
    show_question(asked, load(trace), json, limit(most, json))


for _name in ("decoder", "update", "expected", "roofline"):
    _register(_name)


@app.command(rich_help_panel=PANEL)
def advice(trace: TracePath, json: Json = False) -> None:
    """What should I do about it? (question 8)

    Findings, each with the tag, the number, the threshold, the change and the gain at most.
    An empty list is a fine answer.

    Example: `glassworld trace advice outputs/profile_trace.json`
    """
    from rich.console import Console

    from glassworld.trace.advice import advise
    from glassworld.trace.report.terminal import show_advice

    findings = advise(load(trace))
    if json:
        print_json(findings)
    else:
        show_advice(Console(), findings)


@app.command(rich_help_panel=PANEL)
def gaps(trace: TracePath, most: Most = None, json: Json = False) -> None:
    """Where does the GPU idle, and who is to blame? (question 9)

    The longest stretches without GPU work, and what the CPU did until the launch that ended each.

    Example: `glassworld trace gaps outputs/profile_trace.json -n 5`
    """
    from glassworld.trace.report.sections import question

    show_question(question("gaps"), load(trace), json, limit(most, json))


_register("memory")
