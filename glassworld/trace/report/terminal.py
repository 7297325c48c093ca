"""Tables and sentences for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from glassworld.trace.analyzers.compare import Comparison
from glassworld.trace.report.wrapping import Name
from glassworld.trace.rules.rule import Finding
from glassworld.trace.timeline.tag_names import places

if TYPE_CHECKING:
    from glassworld.trace.report.sections import Section
    from glassworld.trace.timeline.analysis import Analysis


TINY = 1e-4  # of milliseconds a tenth of a microsecond, which is what rounding leaves

NOTHING = (None, "", "-")
"""What a column that says nothing is full of."""


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A table of names, which the first column holds, and numbers."""
    made = Table(
        title=escape(title), title_justify="left", box=None, pad_edge=False, title_style="bold"
    )
    lines = [(Name(f"{first}"), *others) for first, *others in rows]
    for i, column in enumerate(columns):
        names = any(isinstance(line[i], Name) for line in lines)
        made.add_column(column, justify="left" if names else "right", overflow="fold")
    for line in lines:
        made.add_row(*map(_cell, line))
    return made


def _cell(value: object) -> Name | str:
    if isinstance(value, Name):
        return value
    return escape(value) if isinstance(value, str) else number(value)


def number(value: object) -> str:
    """A number with as many digits as one reads; what is next to nothing is 0."""
    if value is None:
        return "-"
    if isinstance(value, float):
        if abs(value) < TINY:
            return "0"
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else f"{value}"


def percent(value: float | None) -> str:
    """A share as a percentage; a dash for None."""
    return "-" if value is None else f"{100 * value:.1f} %"


def show(console: Console, analysis: Analysis) -> None:
    """Every question with its answer; those the trace cannot answer at the end."""
    from glassworld.trace.advice import advise
    from glassworld.trace.report.sections import QUESTIONS

    _show_head(console, analysis)
    show_advice(console, advise(analysis))
    unanswered = []
    for question in QUESTIONS:
        tag = question.under(analysis)
        more = " ".join(
            filter(None, ("glassworld trace", question.command, analysis.trace.path, tag))
        )
        if not show_answer(console, question, analysis, question.most, more):
            unanswered.append(question)
    if unanswered:
        console.print("\n[bold]Not answered by this trace[/bold]")
    for question in unanswered:
        _print_indented(console, f"{question.title} [dim]{escape(question.missing)}.[/dim]", 2)


def _show_head(console: Console, analysis: Analysis) -> None:
    from glassworld.trace.analyzers.bottleneck import bound
    from glassworld.trace.analyzers.caveats import notes

    kind = "GPU busy" if analysis.on_gpu else "CPU"
    trace = analysis.trace
    console.print(
        f"[bold]{escape(trace.path)}[/bold]: {trace.events:,} events, "
        f"{analysis.window_ns / 1e6:,.1f} ms, {len(analysis.tree):,} tags; "
        f"times are {kind} milliseconds",
        highlight=False,
    )
    if analysis.on_gpu:
        cover = analysis.coverage
        console.print(
            f"GPU operations: {cover.gpu_ops:,}, {cover.launched:,} with their launch, "
            f"{cover.attributed:,} in a tag"
        )
    verdict = bound(analysis)
    if verdict:
        console.print(f"{verdict.sentence}.", highlight=False)
    for note in notes(analysis):
        console.print(f"[yellow]note[/yellow] {escape(note)}", highlight=False)


def show_answer(
    console: Console, question: Section, analysis: Analysis, most: int | None, more: str
) -> bool:
    """One question's table and remarks; False where the trace has no answer.

    Of more rows than `most` it says that `more` shows them.
    """
    rows = question.rows(analysis)
    if not rows:
        return False
    console.print()
    console.print(_answer(question, analysis, rows[:most]))
    if most is not None and len(rows) > most:
        left = f"... {len(rows) - most:,} more: {more}"
        console.print(left, style="dim", highlight=False, soft_wrap=True, markup=False)
    for remark in question.remarks(analysis):
        console.print(escape(remark), style="dim", highlight=False)
    return True


def _answer(question: Section, analysis: Analysis, rows: Sequence[object]) -> Table:
    """The rows under those columns that say something of this trace."""
    left_out = () if analysis.on_gpu else question.gpu_columns
    lines = [question.cells(row) for row in rows]
    shown = [
        i
        for i, column in enumerate(question.columns)
        if column not in left_out and any(line[i] not in NOTHING for line in lines)
    ]
    cells = [[line[i] for i in shown] for line in lines]
    return table(question.title, [question.columns[i] for i in shown], cells)


def show_top(console: Console, analysis: Analysis) -> None:
    """The top of the report, for the end of a profiled run: the stages and the advice."""
    from glassworld.trace.advice import advise
    from glassworld.trace.report.sections import question

    show_answer(console, question("stages"), analysis, 8, "glassworld trace stages")
    show_advice(console, advise(analysis)[:3])


def show_advice(console: Console, findings: list[Finding]) -> None:
    """Advice first; saying so when there is none."""
    console.print()
    if not findings:
        console.print("[bold]8. What should I do about it?[/bold] Nothing stands out.")
        return
    console.print("[bold]8. What should I do about it?[/bold]")
    for finding in findings:
        gain = f" Gain: up to {finding.gain_ms:,.1f} ms." if finding.gain_ms else ""
        evidence = (
            f"[red]{finding.rule}[/red] [bold]{escape(finding.tag)}[/bold] "
            f"{escape(finding.what)} ({finding.measured})"
        )
        _print_indented(console, evidence, 2)
        _print_indented(console, f"{escape(_sentence(finding.change))}{gain}", 4)


def _sentence(text: str) -> str:
    """The text with a capital and a full stop."""
    return f"{text[0].upper()}{text[1:]}."


def _print_indented(console: Console, text: str, spaces: int) -> None:
    """The lines of a paragraph all begin there, those that a narrow terminal makes too."""
    console.print(Padding(text, (0, 0, 0, spaces), expand=False), highlight=False)


def show_comparison(console: Console, comparison: Comparison, most: int = 25) -> None:
    """Question 9: two runs, and the tags that only one of them has."""
    within = places([change.path for change in comparison.changes])
    rows = [
        (
            f"{c.path[-1]} in {place}" if place else c.path[-1],
            c.before_ms,
            c.after_ms,
            f"{100 * c.change:+.1f} %",
            "-" if c.noise is None else f"± {100 * c.noise:.1f} %",
            c.verdict,
            f"{c.total_ms:+,.2f}",
        )
        for c, place in zip(comparison.changes[:most], within, strict=False)
    ]
    columns = ("tag", "before\nms", "after\nms", "change", "noise", "verdict", "in all\nms")
    kind = "GPU busy time" if comparison.on_gpu else "CPU time"
    console.print(table(f"9. What changed between the two runs? ({kind})", columns, rows))
    left = len(comparison.changes) - most
    if left > 0:
        console.print(f"... {left:,} more: with --json", style="dim", highlight=False)
    for where, only in (("before", comparison.only_before), ("after", comparison.only_after)):
        if only:
            console.print(f"only {where}: {', '.join(only)}", style="dim", markup=False)
