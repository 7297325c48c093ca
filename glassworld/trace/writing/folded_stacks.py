"""Write folded stacks: one line per stack, its frames and its nanoseconds, as flame graphs take."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from glassworld.files import write_file
from glassworld.trace.timeline.analysis import Analysis
from glassworld.trace.writing.host_ranges import host_ranges

OUTSIDE = "(outside tags)"


def write_folded(path: Path, analysis: Analysis) -> None:
    """Write the stacks of the time that counts.

    On a GPU a stack is the tags around a launch and the operation; its nanoseconds are what it adds
    to the GPU's busy time, so all lines add up to it. Without a GPU it is the ranges of a thread,
    and its nanoseconds are the self time of the innermost.
    """
    totals = _gpu_stacks(analysis) if analysis.on_gpu else _cpu_stacks(analysis)
    lines = [f"{stack} {ns}\n" for stack, ns in sorted(totals.items()) if ns]
    write_file(path, "".join(lines).encode())


def _gpu_stacks(analysis: Analysis) -> Counter[str]:
    tree, ops = analysis.tree, analysis.ops
    paths = [
        ";".join(map(_frame, tree.by_name.path(group, tree.names)))
        for group in range(len(tree.by_name))
    ]
    group = np.where(ops.tag >= 0, tree.by_name.of[ops.tag], -1) if len(tree) else ops.tag
    totals: Counter[str] = Counter()
    for g, name, ns in zip(
        group.tolist(), ops.rows["name"].tolist(), ops.exclusive.tolist(), strict=True
    ):
        around = paths[g] if g >= 0 else OUTSIDE
        totals[f"{around};{_frame(analysis.trace.names[name])}"] += ns
    return totals


def _cpu_stacks(analysis: Analysis) -> Counter[str]:
    ranges, names = host_ranges(analysis.trace), analysis.trace.names
    rows, forest = ranges.rows, ranges.forest
    duration = forest.end - rows["start"]
    self_ns = (duration - forest.sum_into_parents(duration)).tolist()
    parent, name = forest.parent.tolist(), rows["name"].tolist()
    numbers: dict[tuple[int, int], int] = {}
    stack_of = [0] * len(rows)
    texts: list[str] = []
    totals: Counter[str] = Counter()
    for i in forest.order.tolist():
        above = stack_of[parent[i]] if parent[i] >= 0 else -1
        key = (above, name[i])
        if key not in numbers:
            numbers[key] = len(texts)
            frame = _frame(names[name[i]])
            texts.append(f"{texts[above]};{frame}" if above >= 0 else frame)
        stack_of[i] = numbers[key]
        totals[texts[numbers[key]]] += max(0, self_ns[i])
    return totals


def _frame(name: str) -> str:
    """Return a name without what separates frames and lines."""
    return " ".join(name.replace(";", ",").split()) or "(no name)"
