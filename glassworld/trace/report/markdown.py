"""Write the comparisons of two runs as Markdown, for a pull request."""

from __future__ import annotations

from collections import Counter

from glassworld.trace.analyzers.compare import RunComparison, TagChange
from glassworld.trace.analyzers.structure.structural_diff import (
    INSERTED,
    MOVED,
    REMOVED,
    RENAMED,
    SAME,
    StructuralDiff,
)
from glassworld.trace.report.structure import change_names

MOST_ROWS = 20


def comparison_markdown(comparison: RunComparison, most: int = MOST_ROWS) -> str:
    """Return a heading, a sentence and a table of the changes beyond the noise.

    The tags without one follow in a folded table, at most `most` rows in each.
    """
    kind = "GPU busy time" if comparison.on_gpu else "CPU time"
    counts = {
        verdict: sum(change.verdict == verdict for change in comparison.changes)
        for verdict in ("slower", "faster", "same", "unknown")
    }
    changed = [c for c in comparison.changes if c.verdict in ("slower", "faster")]
    others = [c for c in comparison.changes if c.verdict not in ("slower", "faster")]
    lines = ["### Trace comparison", ""]
    lines += [f"{kind} of each tag: " + ", ".join(f"{n} {v}" for v, n in counts.items()) + ".", ""]
    lines += _table(changed, most) if changed else ["No tag changed beyond the noise.", ""]
    if others:
        lines += ["<details><summary>Tags without a clear change</summary>", ""]
        lines += [*_table(others, most), "</details>", ""]
    for where, only in (("before", comparison.only_before), ("after", comparison.only_after)):
        if only:
            names = ", ".join(f"`{_cell(name)}`" for name in only[:most])
            left = f" and {len(only) - most} more" if len(only) > most else ""
            lines += [f"Only {where}: {names}{left}", ""]
    return "\n".join(lines)


def _table(changes: list[TagChange], most: int) -> list[str]:
    lines = [
        "| tag | before ms | after ms | change | noise | verdict |",
        "|---|--:|--:|--:|--:|---|",
    ]
    for change in changes[:most]:
        noise = "-" if change.noise is None else f"± {100 * change.noise:.1f}%"
        lines.append(
            f"| `{_cell(' > '.join(change.path))}` | {change.before_ms:,.3f} | "
            f"{change.after_ms:,.3f} | {100 * change.change:+.1f}% | {noise} | {change.verdict} |"
        )
    if len(changes) > most:
        lines.append(f"| {len(changes) - most} more | | | | | |")
    return [*lines, ""]


def structure_markdown(diff: StructuralDiff, most: int = MOST_ROWS) -> str:
    """Return a heading, two sentences and a table of the parts that changed most.

    Parts alike in both runs, with the same self time, are left out and counted.
    """
    kind = "GPU busy time" if diff.on_gpu else "CPU time"
    kinds = Counter(change.kind for change in diff.changes)
    counts = ", ".join(f"{kinds[k]} {k}" for k in (SAME, RENAMED, MOVED, INSERTED, REMOVED))
    totals = [("outside these parts", diff.outside_ms), ("window", diff.window_ms)]
    if diff.on_gpu:
        totals.insert(1, ("GPU idle", diff.idle_ms))
    sums = ", ".join(f"{name} {old:,.3f} -> {new:,.3f}" for name, (old, new) in totals)
    lines = ["### Trace comparison by structure", "", f"Self {kind} of {diff.parts}: {counts}."]
    lines += [f"In ms: {sums}.", ""]
    changes = [c for c in diff.changes if c.kind != SAME or c.self_change_ms]
    if not changes:
        return "\n".join([*lines, "Nothing changed.", ""])
    lines.append(f"| {diff.parts} | kind | confidence | before ms | after ms | change ms |")
    lines.append("|---|---|--:|--:|--:|--:|")
    for change in changes[:most]:
        before, after = (
            f"{part.self_ms:,.3f}" if part else "-" for part in (change.before, change.after)
        )
        confidence = f"{change.confidence:.2f}" if change.confidence else "-"
        lines.append(
            f"| `{_cell(change_names(change))}` | {change.kind} | {confidence} | {before} | "
            f"{after} | {change.self_change_ms:+,.3f} |"
        )
    if len(changes) > most:
        lines.append(f"| {len(changes) - most} more | | | | | |")
    return "\n".join([*lines, ""])


def _cell(text: str) -> str:
    """Return a text that ends neither a cell nor its code."""
    return " ".join(text.replace("|", "\\|").replace("`", "'").split())
