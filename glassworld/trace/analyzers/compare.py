"""Compare two runs tag by tag, with an estimate of the noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from glassworld.errors import TraceError
from glassworld.trace.reading.columns import Floats
from glassworld.trace.timeline.analysis import Analysis
from glassworld.trace.timeline.rows import largest_first
from glassworld.trace.timeline.stats import median_standard_error

SIGMAS = 3.0
INDEXED = ("step", "layer")
"""Tags that stand for one of these are compared one by one, not all together."""
_TINY_MS = 0.001  # a change by less is none; of a shorter time, a change is a share of this


@dataclass(frozen=True)
class TagChange:
    """A tag's time per instance in two runs; milliseconds, shares of the time before.

    `path` is of patterns, with the step or layer filled in that the tag itself stands for; around
    the tag it names only tags that both runs have.
    `noise` is the standard error of `change`, from the repeated instances; None if either run has
    fewer than three. `verdict` is slower, faster, same or unknown.
    """

    path: tuple[str, ...]
    before_ms: float
    after_ms: float
    instances: tuple[int, int]
    change: float
    noise: float | None
    verdict: str
    total_ms: float
    """The change over all instances of the second run."""


@dataclass(frozen=True)
class RunComparison:
    """All tags in both runs, the largest change first, and those in only one of them.

    `on_gpu` is True if GPU busy time is compared, which both runs have; else it is CPU time.
    """

    changes: list[TagChange]
    only_before: list[str]
    only_after: list[str]
    on_gpu: bool

    def regressions(self, over: float) -> list[TagChange]:
        """Return the tags that became slower by more than the share `over` and the noise."""
        return [c for c in self.changes if c.verdict == "slower" and c.change > over]


def compare_runs(before: Analysis, after: Analysis) -> RunComparison:
    """Align two analyses by paths and compare the median instances of each.

    Raises `TraceError` if they have no tag in common.
    """
    on_gpu = before.on_gpu and after.on_gpu
    shared = set(before.tree.patterns) & set(after.tree.patterns)
    first, second = _samples(before, shared, on_gpu), _samples(after, shared, on_gpu)
    both = [path for path in first if path in second]
    if not both:
        raise TraceError(
            f"{before.trace.path} and {after.trace.path}: no tag is in both, so there is nothing "
            "to compare; use two traces of the same program, or pair their parts with --structure"
        )
    changes = [_change(path, first[path], second[path]) for path in both]
    return RunComparison(
        sorted(changes, key=lambda change: largest_first(abs(change.total_ms), change.path)),
        [" > ".join(path) for path in first if path not in second],
        [" > ".join(path) for path in second if path not in first],
        on_gpu,
    )


def _samples(analysis: Analysis, shared: set[str], on_gpu: bool) -> dict[tuple[str, ...], Floats]:
    """Return the times of the instances of every path, in milliseconds and order of time.

    If a tag is `shared`, its path leaves out the tags around it that are not: a part of a run
    lacks the tags that were open when its recording began.
    """
    tree = analysis.tree
    groups, times = tree.by_pattern, (analysis.device.busy if on_gpu else tree.cpu_ns) / 1e6
    paths = []
    for group in range(len(groups)):
        path = groups.path(group, tree.patterns)
        shared_path = tuple(tag for tag in path if tag in shared)
        paths.append(shared_path if path[-1] in shared else path)
    path_index = {path: i for i, path in enumerate(dict.fromkeys(paths))}
    path_of = np.array([path_index[path] for path in paths], dtype=np.int64)[groups.of]
    index = np.full(len(tree), -1)
    for dimension in INDEXED:
        has_dimension = [f"{{{dimension}}}" in pattern for pattern in tree.patterns]
        indexed = np.array(has_dimension, dtype=bool)[tree.pattern]
        index[indexed] = tree.dims[dimension][indexed]
    order = np.lexsort((tree.rows["start"], index, path_of))
    keys = np.stack([path_of[order], index[order]])
    bounds = np.flatnonzero((np.diff(keys, axis=1) != 0).any(axis=0)) + 1
    samples = {}
    for members in np.split(order, bounds) if len(order) else []:
        *around, own = paths[groups.of[members[0]]]
        number = f"{index[members[0]]}"
        own = own.replace("{step}", number).replace("{layer}", number)
        samples[(*around, own)] = times[members]
    return samples


def _change(path: tuple[str, ...], before: Floats, after: Floats) -> TagChange:
    old, new = float(np.median(before)), float(np.median(after))
    whole = max(old, _TINY_MS)
    change = (new - old) / whole
    noise = None
    if min(len(before), len(after)) >= 3:
        noise = float(np.hypot(median_standard_error(before), median_standard_error(after))) / whole
    if noise is None:
        verdict = "unknown"
    elif abs(change) <= SIGMAS * noise or abs(new - old) < _TINY_MS:
        verdict = "same"
    else:
        verdict = "slower" if change > 0 else "faster"
    return TagChange(
        path, old, new, (len(before), len(after)), change, noise, verdict, (new - old) * len(after)
    )
