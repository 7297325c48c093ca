"""Compare two runs with other names, other hardware or other versions, part by part.

The parts are tags if they explain both runs, else modules, else operators. Milliseconds throughout.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from glassworld.errors import TraceError
from glassworld.trace.analyzers.execution import tags_explain
from glassworld.trace.analyzers.structure.alignment import NodeMatch, TreeNode, align_trees
from glassworld.trace.timeline.analysis import Analysis
from glassworld.trace.timeline.merged import operator_stacks
from glassworld.trace.timeline.rows import TagRow, largest_first

SAME, RENAMED, MOVED, INSERTED, REMOVED = "same", "renamed", "moved", "inserted", "removed"


@dataclass(frozen=True)
class PartOfRun:
    """A part in one of the runs: its path, its calls, its time and its self time."""

    path: tuple[str, ...]
    calls: int
    ms: float
    self_ms: float


@dataclass(frozen=True)
class PartChange:
    """A part in both runs, or in one of them; `kind` says how the two belong together.

    `confidence` is 1 for equal paths, else how alike the two are; 0 for a part in one run only.
    `self_change_ms` is the change of the self time.
    """

    kind: str
    before: PartOfRun | None
    after: PartOfRun | None
    confidence: float
    self_change_ms: float


@dataclass(frozen=True)
class StructuralDiff:
    """All parts of two runs, the largest change of self time first.

    Pairs are of the first and the second run. The self times of all parts, `outside_ms` (the time
    outside of them) and `idle_ms` (of the GPU; 0 where CPU time is compared) add up to `window_ms`.
    `outside_ms` is negative where parts run on several threads at a time.
    """

    parts: str
    on_gpu: bool
    window_ms: tuple[float, float]
    outside_ms: tuple[float, float]
    idle_ms: tuple[float, float]
    changes: list[PartChange]


def compare_structure(before: Analysis, after: Analysis) -> StructuralDiff:
    """Align the parts of two runs and compare their times.

    Raises `TraceError` if the runs have no tags, modules or operators to align.
    """
    parts, trees = _trees(before, after)
    on_gpu = before.on_gpu and after.on_gpu
    sides = [[_part(row, on_gpu) for row in rows] for rows in trees]
    nodes = [
        _nodes(analysis, rows, side, parts == "tags")
        for analysis, rows, side in zip((before, after), trees, sides, strict=True)
    ]
    changes = [_change(match, *sides) for match in align_trees(*nodes)]
    window = (before.duration_ns / 1e6, after.duration_ns / 1e6)
    idle = [0.0, 0.0]
    for i, gpu in enumerate((before.gpu, after.gpu)):
        idle[i] = window[i] - gpu.busy_ns / 1e6 if on_gpu and gpu else 0.0
    outside = [window[i] - idle[i] - sum(part.self_ms for part in sides[i]) for i in (0, 1)]
    return StructuralDiff(
        parts=parts,
        on_gpu=on_gpu,
        window_ms=window,
        outside_ms=(outside[0], outside[1]),
        idle_ms=(idle[0], idle[1]),
        changes=sorted(changes, key=_order),
    )


def _trees(before: Analysis, after: Analysis) -> tuple[str, list[Sequence[TagRow]]]:
    """Return the kind of parts that both runs have, and their rows, parents first."""
    tags: list[Sequence[TagRow]] = [before.patterns, after.patterns]
    modules: list[Sequence[TagRow]] = [before.modules, after.modules]
    if all(tags) and (not all(modules) or (tags_explain(before) and tags_explain(after))):
        return "tags", tags
    if all(modules):
        return "modules", modules
    operators: list[Sequence[TagRow]] = [operator_stacks(before), operator_stacks(after)]
    if all(operators):
        return "operators", operators
    raise TraceError(
        f"{before.trace.path} and {after.trace.path}: the two have neither tags nor modules nor "
        "operators in common, so there is nothing to align; use traces with tags"
    )


def _part(row: TagRow, on_gpu: bool) -> PartOfRun:
    ms, self_ms = (row.gpu_busy_ms, row.gpu_self_ms) if on_gpu else (row.cpu_ms, row.self_cpu_ms)
    return PartOfRun(row.path, row.instances, ms, self_ms)


def _nodes(
    analysis: Analysis, rows: Sequence[TagRow], parts: Sequence[PartOfRun], tags: bool
) -> list[TreeNode]:
    index = {row.path: i for i, row in enumerate(rows)}
    parents = [index.get(row.path[:-1], -1) for row in rows]
    whole = sum(part.ms for part in parts if len(part.path) == 1) or 1.0
    called: defaultdict[int, Counter[str]] = defaultdict(Counter)
    if tags:
        table, names = analysis.operators, analysis.trace.names
        for group, name, calls in zip(
            table.group.tolist(), table.name.tolist(), table.calls.tolist(), strict=True
        ):
            if group >= 0:
                called[group][names[name]] += calls
    inside: list[Counter[str]] = [Counter(called[i]) for i in range(len(rows))]
    for i in range(len(rows) - 1, -1, -1):  # children come after their parents
        if parents[i] >= 0:
            inside[parents[i]] += inside[i]
            inside[parents[i]][rows[i].path[-1]] += rows[i].instances
    return [
        TreeNode(
            row.path[-1],
            parents[i],
            row.instances,
            parts[i].ms / whole,
            Counter({n: max(1, round(c / max(1, row.instances))) for n, c in inside[i].items()}),
        )
        for i, row in enumerate(rows)
    ]


def _change(
    match: NodeMatch, before: Sequence[PartOfRun], after: Sequence[PartOfRun]
) -> PartChange:
    old = before[match.before] if match.before >= 0 else None
    new = after[match.after] if match.after >= 0 else None
    if old is None or new is None:
        kind = INSERTED if old is None else REMOVED
    elif match.moved:
        kind = MOVED
    else:
        kind = SAME if old.path[-1] == new.path[-1] else RENAMED
    change = (new.self_ms if new else 0.0) - (old.self_ms if old else 0.0)
    return PartChange(kind, old, new, match.confidence, change)


def _order(change: PartChange) -> tuple[object, ...]:
    part = change.after or change.before
    return largest_first(abs(change.self_change_ms), part.path if part else ())
