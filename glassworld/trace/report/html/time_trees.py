"""The trees of the page: tags, modules or operators, each with its time, parents first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from glassworld.profiling import registry as tags
from glassworld.trace.analyzers.execution import slow_parts, tags_explain
from glassworld.trace.timeline.analysis import Analysis
from glassworld.trace.timeline.merged import operator_stacks
from glassworld.trace.timeline.rows import TagRow
from glassworld.trace.timeline.tag_names import parse_tag_name

MOST_ROWS = 1500
LEAST_SHARE = 5e-4  # of the tree's time: a box with less is narrower than a pixel

Look = dict[str, str]
Tree = list[list[Any]]
"""Rows of a tree; `TAG` in icicle.js names the columns."""


def time_trees(analysis: Analysis) -> dict[str, Tree]:
    """Return the trees that the trace has, by kind.

    There is one of tags and one of modules where there are any. Operators have one where neither
    tags nor modules say what a run does.
    """
    trees = {"tags": _tag_tree(analysis), "modules": _stack_tree(analysis, analysis.modules)}
    if not tags_explain(analysis) and _slow_kind(analysis) != "module":
        trees["operators"] = _stack_tree(analysis, operator_stacks(analysis))
    return {kind: tree for kind, tree in trees.items() if tree}


def default_tree(analysis: Analysis, trees: dict[str, Tree]) -> str:
    """Return the kind to show first: tags if they explain the run, else what is listed as slow."""
    kind = f"{_slow_kind(analysis)}s"
    first = "tags" if tags_explain(analysis) or kind not in trees else kind
    return first if first in trees else next(iter(trees), "")


def _slow_kind(analysis: Analysis) -> str:
    parts = slow_parts(analysis)
    return parts[0].kind if parts else ""


def tag_look(name: str) -> dict[str, str]:
    """Return the label and the family of a tag; a name that the registry lacks is its own label."""
    pattern, fields = parse_tag_name(name)
    if pattern in tags.REGISTRY:
        family = tags.REGISTRY[pattern].family.name
        return {"label": tags.tag_label(pattern, fields), "family": family}
    return {"label": name, "family": ""}


def _tag_tree(analysis: Analysis) -> Tree:
    """Return the tags by pattern, each in the color of the part of a block that it lies in."""
    parents = analysis.pattern_parents
    rows = analysis.patterns[:MOST_ROWS]
    parts = tags.child_tags(tags.BLOCK)
    part_of: list[int] = []
    """For each row the outermost part of a block that it is or lies in; itself in none."""
    for g in range(len(rows)):
        above = part_of[parents[g]] if parents[g] >= 0 else -1
        part_of.append(above if above >= 0 and rows[above].pattern in parts else g)
    looks = [tag_look(row.name) for row in rows]
    table = []
    for g, row in enumerate(rows):
        around = part_of[parents[g]] if parents[g] >= 0 else -1
        within = looks[around]["label"] if around >= 0 else ""
        look = looks[g] | {"family": looks[part_of[g]]["family"]}
        table.append(_tree_row(row, parents[g], look, within))
    return table


def _stack_tree(analysis: Analysis, rows: Sequence[TagRow]) -> Tree:
    """Return modules or operators by path, without those too short to be seen."""
    whole = sum(analysis.ms(row) for row in rows if len(row.path) == 1)
    index: dict[tuple[str, ...], int] = {}
    table: Tree = []
    for row in rows:
        parent = index.get(row.path[:-1], -1)
        seen = analysis.ms(row) >= LEAST_SHARE * whole and len(table) < MOST_ROWS
        if seen and (parent >= 0 or len(row.path) == 1):
            index[row.path] = len(table)
            within = row.path[-2] if parent >= 0 else ""
            table.append(_tree_row(row, parent, {"label": row.name, "family": ""}, within))
    return table


def _tree_row(row: TagRow, parent: int, look: Look, within: str) -> list[Any]:
    return [
        parent,
        row.name,
        row.pattern,
        look["label"],
        look["family"],
        within,
        row.instances,
        round(row.cpu_ms, 3),
        round(row.self_cpu_ms, 3),
        round(row.gpu_busy_ms, 3),
        round(row.gpu_self_ms, 3),
        round(row.gpu_idle_ms, 3),
        row.gpu_kernels,
    ]
