"""The tag tree: every instance of every tag, grouped by its path of names and of patterns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from glassworld.trace.reading.columns import Codes, Ints, Trace
from glassworld.trace.timeline.intervals import IntervalForest, nest_intervals
from glassworld.trace.timeline.tag_names import DIMENSIONS, parse_tag_name


@dataclass(frozen=True)
class PathGroups:
    """Instances grouped by path; `of` maps an instance to its group.

    `label[g]` numbers the last part of group g's path, `parent[g]` the group it lies in (-1 at
    the root); parents come before children.
    """

    of: Codes
    label: Codes
    parent: Codes

    def __len__(self) -> int:
        return len(self.label)

    def path(self, group: int, labels: list[str]) -> tuple[str, ...]:
        """Return the labels from the root down to `group`."""
        reversed_path = []
        while group >= 0:
            reversed_path.append(labels[self.label[group]])
            group = int(self.parent[group])
        return tuple(reversed(reversed_path))


@dataclass(frozen=True)
class TagTree:
    """All tag instances of a trace.

    `rows` are the instances (dtype `RANGE`); `pattern` holds indices into `patterns`;
    `dims[name]` is an index dimension per instance, inherited from the tags around it, -1 where
    there is none. `cpu_ns` is the time on the CPU, cut where a tag outlasts the one it began in;
    `self_ns` is the part of it outside any child.
    """

    rows: npt.NDArray[np.void]
    forest: IntervalForest
    names: list[str]
    patterns: list[str]
    pattern: Codes
    by_name: PathGroups
    by_pattern: PathGroups
    dims: dict[str, Codes]
    cpu_ns: Ints
    self_ns: Ints

    def __len__(self) -> int:
        return len(self.rows)

    def instance_name(self, instance: int) -> str:
        """Return the name of an instance."""
        return self.names[int(self.rows["name"][instance])]

    def where(self, pattern: str) -> Ints:
        """Return the instances of a pattern, in order of time."""
        if pattern not in self.patterns:
            return np.empty(0, dtype=np.int64)
        instances = np.flatnonzero(self.pattern == self.patterns.index(pattern))
        return instances[np.argsort(self.rows["start"][instances], kind="stable")]

    def ancestor(self, instances: Ints, pattern: str) -> Codes:
        """Return the nearest instance of `pattern` at or around each instance; -1 if none."""
        wanted = self.patterns.index(pattern) if pattern in self.patterns else -1
        nearest = instances.astype(np.int32)
        while True:
            climb = (nearest >= 0) & (self.pattern[nearest] != wanted)
            if not climb.any():
                return nearest
            nearest[climb] = self.forest.parent[nearest[climb]]


def build_tree(trace: Trace, more: npt.NDArray[np.void] | None = None) -> TagTree:
    """Nest the tags of `trace`, and `more` tags, and parse their names."""
    rows = trace.tags if more is None else np.concatenate([trace.tags, more])
    forest = nest_intervals(rows, trace.carried)
    used, which = np.unique(rows["name"], return_inverse=True)
    parsed = [parse_tag_name(trace.names[name]) for name in used]
    patterns = list(dict.fromkeys(pattern for pattern, _ in parsed))
    index = {pattern: i for i, pattern in enumerate(patterns)}
    pattern = np.array([index[p] for p, _ in parsed], dtype=np.int32)[which]
    levels = _levels(forest)
    dims = {}
    for dimension in DIMENSIONS:
        own = np.array([values.get(dimension, -1) for _, values in parsed], dtype=np.int32)
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


def _levels(forest: IntervalForest) -> list[Ints]:
    """Return the instances at each depth."""
    deepest = int(forest.depth.max(initial=-1))
    by_depth = np.argsort(forest.depth, kind="stable")
    bounds = np.searchsorted(forest.depth[by_depth], np.arange(deepest + 2))
    return [by_depth[bounds[d] : bounds[d + 1]] for d in range(deepest + 1)]


def _inherit(own: Codes, forest: IntervalForest, levels: list[Ints]) -> Codes:
    """Fill in the parent's value where an instance has none of its own."""
    values = own.copy()
    for level in levels[1:]:
        missing = level[values[level] < 0]
        values[missing] = values[forest.parent[missing]]
    return values


def _group(label: Codes, forest: IntervalForest, levels: list[Ints]) -> PathGroups:
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
    return PathGroups(of, np.concatenate(labels), np.concatenate(parents))
