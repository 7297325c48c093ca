"""Print a structural diff in the terminal."""

from __future__ import annotations

from rich.console import Console

from glassworld.trace.analyzers.structure.structural_diff import (
    SAME,
    PartChange,
    StructuralDiff,
)
from glassworld.trace.report.terminal import table

MOST_ROWS = 25


def show_structure(console: Console, diff: StructuralDiff, most: int = MOST_ROWS) -> None:
    """Print the parts that changed most, and what adds up to the two windows."""
    rows = [
        (
            change_names(change),
            change.kind,
            f"{change.confidence:.2f}" if change.confidence else "",
            change.before.self_ms if change.before else None,
            change.after.self_ms if change.after else None,
            f"{change.self_change_ms:+,.2f}",
        )
        for change in diff.changes[:most]
    ]
    kind = "GPU busy time" if diff.on_gpu else "CPU time"
    columns = (diff.parts, "kind", "confi-\ndence", "self ms\nbefore", "self ms\nafter", "change")
    console.print(table(f"Structure of the two runs ({kind})", columns, rows))
    left = len(diff.changes) - most
    if left > 0:
        console.print(f"... {left:,} more: use --json", style="dim", highlight=False)
    totals = [("outside these parts", diff.outside_ms), ("window", diff.window_ms)]
    if diff.on_gpu:
        totals.insert(1, ("GPU idle", diff.idle_ms))
    for name, (before, after) in totals:
        console.print(f"{name}: {before:,.2f} ms -> {after:,.2f} ms", style="dim", highlight=False)


def change_names(change: PartChange) -> str:
    """Return the part's name, both names where they differ, and where it moved to."""
    before, after = change.before, change.after
    if before is None or after is None:
        part = before or after
        return " > ".join(part.path) if part else ""
    if before.path[-1] != after.path[-1]:
        return f"{before.path[-1]} -> {after.path[-1]}"
    if change.kind == SAME:
        return after.path[-1]
    return f"{' > '.join(before.path)} -> {' > '.join(after.path)}"
