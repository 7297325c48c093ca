"""The answers as tables in the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from glassworld.trace import questions
from glassworld.trace.advice import advise
from glassworld.trace.analysis import Analysis, TagRow
from glassworld.trace.compare import Comparison
from glassworld.trace.expected import expected_table, guide_note
from glassworld.trace.findings import Finding
from glassworld.trace.gaps import idle_gaps
from glassworld.trace.memory import held
from glassworld.trace.notes import notes
from glassworld.trace.optable import OperatorRow, operator_rows
from glassworld.trace.roofline import roofline


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A table whose first column is text and whose others are numbers."""
    made = Table(title=title, title_justify="left", box=None, pad_edge=False, title_style="bold")
    for i, column in enumerate(columns):
        made.add_column(column, justify="left" if i == 0 else "right", overflow="fold")
    for row in rows:
        made.add_row(*(cell if isinstance(cell, str) else number(cell) for cell in row))
    return made


def number(value: object) -> str:
    """A number with as many digits as one reads."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value}"


def percent(value: float | None) -> str:
    """A share as a percentage; a dash for None."""
    return "-" if value is None else f"{100 * value:.1f} %"


def show(console: Console, analysis: Analysis) -> None:
    """Every question with its answer."""
    kind = "GPU busy" if analysis.on_gpu else "CPU"
    trace = analysis.trace
    console.print(
        f"[bold]{trace.path}[/bold]: {trace.events:,} events, {analysis.window_ns / 1e6:,.1f} ms, "
        f"{len(analysis.tree):,} tags; times are {kind} milliseconds"
    )
    if analysis.on_gpu:
        cover = analysis.coverage
        console.print(
            f"GPU operations: {cover.gpu_ops:,}, {cover.launched:,} with their launch, "
            f"{cover.attributed:,} in a tag"
        )
    for note in notes(analysis):
        console.print(f"[yellow]note[/yellow] {note}", highlight=False)
    show_advice(console, advise(analysis))
    made = [
        stages_table(analysis),
        blocks_table(analysis),
        steps_table(analysis),
        parts_table("4. What is the diffusion model made of?", questions.transformer(analysis)),
        operators_table(operator_rows(analysis), most=12),
        parts_table("5. Where does the VAE decoder spend its time?", questions.decoder(analysis)),
        update_table(analysis),
        expected_view(analysis),
        roofline_table(analysis),
        gaps_table(analysis, 8),
        memory_table(analysis, 8),
    ]
    for each in made:
        if each is not None and each.row_count:
            console.print()
            console.print(each)
    note = guide_note(analysis)
    if note:
        console.print(note, style="dim")


def show_top(console: Console, analysis: Analysis) -> None:
    """The top of the report, for the end of a profiled run: the stages and the advice."""
    console.print(stages_table(analysis))
    show_advice(console, advise(analysis)[:3])


def show_advice(console: Console, findings: list[Finding]) -> None:
    """Advice first; saying so when there is none."""
    console.print()
    if not findings:
        console.print("[bold]8. What should I do about it?[/bold] Nothing stands out.")
        return
    console.print("[bold]8. What should I do about it?[/bold]")
    for finding in findings:
        console.print(
            f"  [red]{finding.rule}[/red] [bold]{finding.tag}[/bold] {finding.what} "
            f"(threshold {number(finding.threshold)} {finding.unit}). {finding.change}. "
            f"Gain: up to {finding.gain_ms:,.1f} ms.",
            highlight=False,
        )


def stages_table(analysis: Analysis) -> Table:
    """Question 1."""
    return parts_table("1. Which stage is the slowest?", questions.stages(analysis))


def parts_table(title: str, parts: list[questions.Part]) -> Table:
    """Parts of a whole."""
    rows = [(p.name, p.ms, percent(p.share), p.count, p.cpu_ms) for p in parts]
    return table(title, ("tag", "ms", "share", "count", "CPU ms"), rows)


def blocks_table(analysis: Analysis) -> Table:
    """Question 2."""
    growth = questions.drift(analysis)
    steady = "" if growth is None else f" Drift: {percent(growth)} per block."
    rows = [
        (f"{b.block}", b.ms, b.steps_ms, b.update_ms, b.decode_ms, b.other_ms, "x" * b.outlier)
        for b in questions.blocks(analysis)
    ]
    columns = ("block", "ms", "steps", "update", "decode", "other", "outlier")
    return table(f"2. How long does each block take, and of what?{steady}", columns, rows)


def steps_table(analysis: Analysis) -> Table:
    """Question 3."""
    rows = [
        (f"{s.step} (t{s.timestep})", s.median_ms, s.min_ms, s.max_ms, s.first_block_ms, s.count)
        for s in questions.steps(analysis)
    ]
    columns = ("step", "median", "min", "max", "first block", "count")
    return table("3. How do the denoising steps compare?", columns, rows)


def operators_table(rows: list[OperatorRow], most: int = 30) -> Table:
    """Question 4, by operator."""
    return table(
        "4. Which operators?",
        ("operator", "calls", "CPU ms", "own CPU ms", "GPU ms", "share"),
        [
            (r.name, r.calls, r.cpu_ms, r.self_cpu_ms, r.gpu_ms, percent(r.share))
            for r in rows[:most]
        ],
    )


def update_table(analysis: Analysis) -> Table:
    """Question 6."""
    cost = questions.update_cost(analysis)
    rows = (
        [(cost.ms, cost.count, percent(cost.share_of_transformer), percent(cost.share_of_run))]
        if cost
        else []
    )
    columns = ("ms", "count", "of the transformer", "of the loop")
    return table("6. What does the KV-cache update cost?", columns, rows)


def expected_view(analysis: Analysis) -> Table:
    """Question 7."""
    rows = [
        (
            e.row,
            e.measured_ms,
            percent(e.share),
            e.expected_ms,
            percent(e.expected_share),
            percent(e.roof_share),
            e.guide,
        )
        for e in expected_table(analysis)
    ]
    columns = ("", "ms", "share", "expected ms", "expected share", "of the ceiling", "the guide")
    return table("7. Where does the time go, against what should be expected?", columns, rows)


def roofline_table(analysis: Analysis) -> Table:
    """Question 7, tag by tag."""
    rows = [
        (p.tag, p.ms, p.gflop, p.gflops, p.intensity, p.roof_gflops, percent(p.roof_share))
        for p in roofline(analysis)
    ]
    columns = ("tag", "ms", "GFLOP", "GFLOP/s", "FLOP/byte", "roof GFLOP/s", "reached")
    return table("7. How close to the machine's roof is each tag?", columns, rows)


def gaps_table(analysis: Analysis, most: int = 20) -> Table:
    """Question 9: idle GPU."""
    rows = [
        (g.culprit[:70] or "(nothing recorded)", g.ms, g.start_ms, g.tag[:40], g.next_op[:40])
        for g in idle_gaps(analysis, most)
    ]
    columns = ("CPU meanwhile", "ms", "at ms", "tag", "next on the GPU")
    return table("9. Where does the GPU idle, and who is to blame?", columns, rows)


def memory_table(analysis: Analysis, most: int = 20) -> Table:
    """Question 9: memory."""
    rows = [
        (m.tag, "CPU" if m.device < 0 else f"GPU {m.device}", m.peak_mib, m.kept_mib)
        for m in held(analysis)[:most]
    ]
    return table("9. What does each tag hold in memory?", ("tag", "on", "peak MiB", "kept"), rows)


def tags_table(rows: list[TagRow]) -> Table:
    """The slowest tags."""
    return table(
        "Slowest tags",
        ("tag", "count", "CPU ms", "own CPU ms", "GPU busy ms", "GPU idle ms", "kernels"),
        [
            (
                r.name,
                r.instances,
                r.cpu_ms,
                r.self_cpu_ms,
                r.gpu_busy_ms,
                r.gpu_idle_ms,
                r.gpu_kernels,
            )
            for r in rows
        ],
    )


def comparison_table(comparison: Comparison, most: int = 25) -> Table:
    """Question 9: two runs."""
    rows = [
        (
            c.path[-1],
            c.before_ms,
            c.after_ms,
            f"{100 * c.change:+.1f} %",
            "-" if c.noise is None else f"± {100 * c.noise:.1f} %",
            c.verdict,
            f"{c.total_ms:+,.2f}",
        )
        for c in comparison.changes[:most]
    ]
    columns = ("tag", "before ms", "after ms", "change", "noise", "verdict", "in all ms")
    return table("9. What changed between the two runs?", columns, rows)
