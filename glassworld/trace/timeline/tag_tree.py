"""The tag tree: every instance of every tag, grouped by its path of names and of patterns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from glassworld.trace.reading.columns import Codes, Ints, Trace
from glassworld.trace.timeline.intervals import Forest, nest
from glassworld.trace.timeline.tag_names import DIMENSIONS, fold


@dataclass(frozen=True)
class Groups:
    """Instances put together by path; `of` maps an instance to its group.

    `label[g]` numbers the last part of group g's path, `parent[g]` the group it lies in (-1 at
    the root); parents come before children.
    """

    of: Codes
    label: Codes
    parent: Codes

    def __len__(self) -> int:
        return len(self.label)

    def path(self, group: int, labels: list[str]) -> tuple[str, ...]:
        """The labels from the root down to `group`."""
        parts = []
        while group >= 0:
            parts.append(labels[self.label[group]])
            group = int(self.parent[group])
        return tuple(reversed(parts))


@dataclass(frozen=True)
class TagTree:
    """All tag instances of a trace.

    `rows` are the instances (dtype `RANGE`); `pattern` numbers `patterns`; `dims[name]` is an
    index dimension per instance, inherited from the tags around it, -1 where there is none.
    `cpu_ns` is the time on the CPU, cut where a tag outlasts the one it began in; `self_ns` is
    the part of it outside any child.
    """

    rows: npt.NDArray[np.void]
    forest: Forest
    names: list[str]
    patterns: list[str]
    pattern: Codes
    by_name: Groups
    by_pattern: Groups
    dims: dict[str, Codes]
    cpu_ns: Ints
    self_ns: Ints

    def __len__(self) -> int:
        return len(self.rows)

    def instance_name(self, instance: int) -> str:
        """Return the name of an instance."""
        return self.names[int(self.rows["name"][instance])]

    def where(self, pattern: str) -> Ints:
        """The instances of a pattern, in order of time."""
        if pattern not in self.patterns:
            return np.empty(0, dtype=np.int64)
        found = np.flatnonzero(self.pattern == self.patterns.index(pattern))
        return found[np.argsort(self.rows["start"][found], kind="stable")]

    def ancestor(self, instances: Ints, pattern: str) -> Codes:
        """The nearest instance of `pattern` at or around each instance; -1 if there is none."""
        wanted = self.patterns.index(pattern) if pattern in self.patterns else -1
        found = instances.astype(np.int32)
        while True:
            climb = (found >= 0) & (self.pattern[found] != wanted)
            if not climb.any():
                return found
            found[climb] = self.forest.parent[found[climb]]


def build_tree(trace: Trace) -> TagTree:
    """Nest the tags of `trace` and fold their names."""
    rows = trace.tags
    forest = nest(rows, trace.carried)
    used, which = np.unique(rows["name"], return_inverse=True)
    folded = [fold(trace.names[name]) for name in used]
    patterns = list(dict.fromkeys(pattern for pattern, _ in folded))
    number = {pattern: i for i, pattern in enumerate(patterns)}
    pattern = np.array([number[p] for p, _ in folded], dtype=np.int32)[which]
    levels = _levels(forest)
    dims = {}
    for dimension in DIMENSIONS:
        own = np.array([values.get(dimension, -1) for _, values in folded], dtype=np.int32)
        dims[dimension] = _inherit(own[which], forest, levels)
    cpu_ns = forest.end - rows["start"]
    return TagTree(
        rows=rows,
        forest=forest,
        names=trace.names,
        patterns=patterns,
        pattern=pattern,
        by_name=_group(rows["name"], forest, levels),
        by_pattern=_group(pattern, forest, levels),
        dims=dims,
        cpu_ns=cpu_ns,
        self_ns=cpu_ns - forest.sum_into_parents(cpu_ns),
    )


def _levels(forest: Forest) -> list[Ints]:
    """The instances at each depth."""
    deepest = int(forest.depth.max(initial=-1))
    by_depth = np.argsort(forest.depth, kind="stable")
    bounds = np.searchsorted(forest.depth[by_depth], np.arange(deepest + 2))
    return [by_depth[bounds[d] : bounds[d + 1]] for d in range(deepest + 1)]


def _inherit(own: Codes, forest: Forest, levels: list[Ints]) -> Codes:
    values = own.copy()
    for level in levels[1:]:
        missing = level[values[level] < 0]
        values[missing] = values[forest.parent[missing]]
    return values


def _group(label: Codes, forest: Forest, levels: list[Ints]) -> Groups:
    """Group instances whose labels agree all the way from the root."""
    of = np.full(len(label), -1, dtype=np.int32)
    labels: list[Codes] = [np.empty(0, dtype=np.int32)]
    parents: list[Codes] = [np.empty(0, dtype=np.int32)]
    count = 0
    wide = int(label.max(initial=0)) + 1
    for depth, level in enumerate(levels):
        above = np.full(len(level), -1) if depth == 0 else of[forest.parent[level]]
        keys = (above.astype(np.int64) + 1) * wide + label[level]
        distinct, inverse = np.unique(keys, return_inverse=True)
        of[level] = count + inverse
        labels.append((distinct % wide).astype(np.int32))
        parents.append((distinct // wide - 1).astype(np.int32))
        count += len(distinct)
    return Groups(of, np.concatenate(labels), np.concatenate(parents))
