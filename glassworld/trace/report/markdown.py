"""Write a comparison of two runs as Markdown, for a pull request."""

from __future__ import annotations

from glassworld.trace.analyzers.compare import RunComparison, TagChange

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
        noise = "-" if change.noise is None else f"± {100 * change.noise:.1f} %"
        lines.append(
            f"| `{_cell(' > '.join(change.path))}` | {change.before_ms:,.3f} | "
            f"{change.after_ms:,.3f} | {100 * change.change:+.1f} % | {noise} | {change.verdict} |"
        )
    if len(changes) > most:
        lines.append(f"| {len(changes) - most} more | | | | | |")
    return [*lines, ""]


def _cell(text: str) -> str:
    """Return a text that ends neither a cell nor its code."""
    return " ".join(text.replace("|", "\\|").replace("`", "'").split())
