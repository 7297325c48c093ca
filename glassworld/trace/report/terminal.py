"""The report in the terminal: tables and sentences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from glassworld.trace.analyzers.bottleneck import find_bottleneck
from glassworld.trace.analyzers.caveats import find_caveats
from glassworld.trace.analyzers.compare import RunComparison
from glassworld.trace.analyzers.critical_path import (
    CriticalPath,
    path_sentence,
    sync_sentences,
    what_if_sentence,
)
from glassworld.trace.report.cells import Name, number
from glassworld.trace.report.sections import SECTIONS, Section, section
from glassworld.trace.rules.rule import Finding, advise
from glassworld.trace.timeline.analysis import Analysis
from glassworld.trace.timeline.tag_names import distinguishing_tags

EMPTY = (None, "", "-")
"""The values of a column that says nothing."""


def show_report(console: Console, analysis: Analysis) -> None:
    """Print the findings and every section; name the sections that the trace lacks at the end."""
    _show_head(console, analysis)
    show_findings(console, advise(analysis))
    missing = []
    for part in SECTIONS:
        tag = part.under(analysis)
        command = ("glassworld trace", part.command, analysis.trace.path, tag)
        shown = part if tag is None else replace(part, title=f"{part.title} of {tag}")
        if not show_section(console, shown, analysis, part.most, " ".join(filter(None, command))):
            missing += [part] if part.mentioned(analysis) else []
    if missing:
        console.print("\n[bold]Not in this trace[/bold]")
    for part in missing:
        _print_indented(console, f"{part.title}: [dim]{escape(part.missing)}.[/dim]", 2)


def _show_head(console: Console, analysis: Analysis) -> None:
    kind = "GPU busy" if analysis.on_gpu else "CPU"
    trace = analysis.trace
    instances = len(analysis.tree) + analysis.dropped_instances
    console.print(
        f"[bold]{escape(trace.path)}[/bold]: {trace.events:,} events, "
        f"{analysis.duration_ns / 1e6:,.1f} ms, {instances:,} tags; "
        f"times are {kind} time",
        highlight=False,
    )
    if analysis.on_gpu:
        cover = analysis.coverage
        console.print(
            f"GPU operations: {cover.gpu_ops:,}; {cover.launched:,} have their launch in the "
            f"trace, {cover.attributed:,} are in a tag"
        )
    verdict = find_bottleneck(analysis)
    if verdict:
        console.print(f"{verdict.sentence}.", highlight=False)
    for note in find_caveats(analysis):
        console.print(f"[yellow]note:[/yellow] {escape(note)}", highlight=False)


def show_section(
    console: Console, shown: Section, analysis: Analysis, most: int | None, more: str
) -> bool:
    """Print a section's table and remarks; return False where the trace has none.

    Where there are more rows than `most`, a line says that `more` shows them.
    """
    rows = shown.rows(analysis)
    if not rows:
        return False
    console.print()
    console.print(_section_table(shown, analysis, rows[:most]))
    if most is not None and len(rows) > most:
        left = f"... {len(rows) - most:,} more: {more}"
        console.print(left, style="dim", highlight=False, soft_wrap=True, markup=False)
    for remark in shown.remarks(analysis):
        console.print(escape(remark), style="dim", highlight=False)
    return True


def _section_table(shown: Section, analysis: Analysis, rows: Sequence[object]) -> Table:
    """Return a table of the rows, without the columns that say nothing about this trace."""
    left_out = () if analysis.on_gpu else shown.gpu_columns
    lines = [shown.cells(row) for row in rows]
    columns = [
        i
        for i, column in enumerate(shown.columns)
        if column not in left_out and any(line[i] not in EMPTY for line in lines)
    ]
    cells = [[line[i] for i in columns] for line in lines]
    return table(shown.title, [shown.columns[i] for i in columns], cells)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """Return a table of names, which the first column holds, and numbers."""
    result = Table(
        title=escape(title), title_justify="left", box=None, pad_edge=False, title_style="bold"
    )
    lines = [(Name(f"{first}"), *others) for first, *others in rows]
    for i, column in enumerate(columns):
        names = any(isinstance(line[i], Name) for line in lines)
        result.add_column(column, justify="left" if names else "right", overflow="fold")
    for line in lines:
        result.add_row(*map(_cell, line))
    return result


def _cell(value: object) -> Name | str:
    if isinstance(value, Name):
        return value
    return escape(value) if isinstance(value, str) else number(value)


def show_top(console: Console, analysis: Analysis) -> None:
    """Print the stages and the largest findings, for the end of a profiled run."""
    show_section(console, section("stages"), analysis, 8, "glassworld trace stages")
    show_findings(console, advise(analysis)[:3])


def show_findings(console: Console, findings: list[Finding]) -> None:
    """Print the findings, or that there are none."""
    console.print()
    if not findings:
        console.print("[bold]Findings[/bold]: none; no rule found a problem.")
        return
    console.print("[bold]Findings[/bold]")
    for finding in findings:
        gain = f" Gain: up to {finding.gain_ms:,.1f} ms." if finding.gain_ms else ""
        evidence = (
            f"[red]{finding.rule}:[/red] [bold]{escape(finding.tag)}[/bold] "
            f"{escape(finding.what)} ({finding.measured})"
        )
        _print_indented(console, evidence, 2)
        _print_indented(console, f"{escape(_sentence(finding.change))}{gain}", 4)


def _sentence(text: str) -> str:
    """Return the text with a capital and a period."""
    return f"{text[0].upper()}{text[1:]}."


def _print_indented(console: Console, text: str, spaces: int) -> None:
    """Print a paragraph with all its lines indented, also those that a narrow terminal breaks."""
    console.print(Padding(text, (0, 0, 0, spaces), expand=False), highlight=False)


def show_critical_path(console: Console, path: CriticalPath, most: int | None) -> None:
    """Print a critical path, at most `most` of its tags, and the runs with faster ones."""
    shown = section("critical-path")
    on_gpu = any(tag.gpu_ms for tag in path.tags)
    kept = [i for i, c in enumerate(shown.columns) if on_gpu or c not in shown.gpu_columns]
    rows = [[shown.cells(tag)[i] for i in kept] for tag in path.tags[:most]]
    columns = [shown.columns[i] for i in kept]
    console.print(table(f"{shown.title}: {path.names}", columns, rows))
    for sentence in (path_sentence(path), *sync_sentences(path)):
        console.print(sentence, highlight=False)
    for run in path.what_if:
        console.print(what_if_sentence(run), highlight=False, markup=False)


def show_comparison(console: Console, comparison: RunComparison, most: int = 25) -> None:
    """Print what changed between two runs, and the tags that only one of them has."""
    within = distinguishing_tags([change.path for change in comparison.changes])
    rows = [
        (
            f"{c.path[-1]} in {place}" if place else c.path[-1],
            c.before_ms,
            c.after_ms,
            f"{100 * c.change:+.1f}%",
            "-" if c.noise is None else f"± {100 * c.noise:.1f}%",
            c.verdict,
            f"{c.total_ms:+,.2f}",
        )
        for c, place in zip(comparison.changes[:most], within, strict=False)
    ]
    columns = ("tag", "before\nms", "after\nms", "change", "noise", "verdict", "total\nms")
    kind = "GPU busy time" if comparison.on_gpu else "CPU time"
    console.print(table(f"Changes between the two runs ({kind})", columns, rows))
    left = len(comparison.changes) - most
    if left > 0:
        console.print(f"... {left:,} more: use --json", style="dim", highlight=False)
    for where, only in (("before", comparison.only_before), ("after", comparison.only_after)):
        if only:
            console.print(f"only {where}: {', '.join(only)}", style="dim", markup=False)
