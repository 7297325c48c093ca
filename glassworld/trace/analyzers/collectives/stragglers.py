"""Find the ranks that arrive last at collectives, and the tag that makes them late."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from glassworld.trace.analyzers.collectives.matching import CollectiveCall
from glassworld.trace.analyzers.collectives.records import gloo_ranges
from glassworld.trace.reading.columns import COLLECTIVE, Floats
from glassworld.trace.timeline.critical_path.threads import busy_ranges, thread_segments
from glassworld.trace.timeline.merged import analyze_at_once


@dataclass(frozen=True)
class StragglerRow:
    """How often a rank arrives last, and why; milliseconds.

    `alone_ms` is the time that all others waited for this rank alone. `tag` took most more time
    than on the other ranks (their median) before the collectives at which this rank was last:
    `more_ms` in all, on the `CPU` or the `GPU`. It is empty where no tag took more.
    """

    rank: int
    collectives: int
    last: int
    alone_ms: float
    tag: str
    where: str
    more_ms: float


Work = dict[tuple[str, str], Floats]
"""By tag and by CPU or GPU: the self time before each collective, and after the one before it."""


def work_between(path: Path) -> Work:
    """Return the self time of each tag between a rank's collectives; ns.

    GPU operations count where they start, CPU time where it passes on the launching threads: until
    the launch of the collective. Those of gloo are launched by the threads that run none of them.
    """
    analysis = analyze_at_once(path)
    trace, tree, ops = analysis.trace, analysis.tree, analysis.ops
    work: Work = {}
    collective = ops.rows["kind"] == COLLECTIVE
    starts = ops.rows["start"][collective]
    calls = trace.launches[ops.launch[collective & (ops.launch >= 0)]]
    launching, launched = set(calls["thread"].tolist()), np.sort(calls["start"])
    if not len(starts):
        ranges = gloo_ranges(trace)
        starts = launched = ranges["start"]
        launching = set(tree.rows["thread"].tolist()) - set(ranges["thread"].tolist())
    count = len(starts) + 1
    label = np.append(tree.pattern, -1)[ops.tag]
    for pattern in np.unique(label[~collective & (label >= 0)]).tolist():
        of = ~collective & (label == pattern)
        index = np.searchsorted(starts, ops.rows["start"][of], "right")
        spent = np.bincount(index, ops.exclusive[of], count)
        work[tree.patterns[pattern], "GPU"] = spent.astype(np.float64)
    pattern_of = np.full(len(tree.by_name) + 1, -1)
    pattern_of[tree.by_name.of] = tree.pattern
    for thread, end, segments in thread_segments(trace, tree, busy_ranges(trace)):
        if thread not in launching or len(launched) + 1 != count:  # some are within graphs
            continue
        cut = segments.split(launched[launched >= trace.start])
        ns = np.diff(np.minimum(np.append(cut.start, end), end))
        index = np.searchsorted(launched, cut.start, "right")
        label = pattern_of[cut.group]
        for pattern in np.unique(label[label >= 0]).tolist():
            spent = np.bincount(index[label == pattern], ns[label == pattern], count)[:count]
            key = (tree.patterns[pattern], "CPU")
            work[key] = work.get(key, np.zeros(count)) + spent
    return work


def straggler_rows(calls: list[CollectiveCall], works: Sequence[Work]) -> list[StragglerRow]:
    """Return one row per rank; `works` are those of the ranks in order."""
    shared = [call for call in calls if len(call.ranks) > 1]
    rows = []
    for rank, _ in enumerate(works):
        mine = [call for call in shared if rank in call.ranks]
        last = [c for c in mine if c.ranks[int(np.argmax(c.start))] == rank and c.skew_ns > 0]
        alone = sum(max(call.start) - sorted(call.start)[-2] for call in last)
        more: defaultdict[tuple[str, str], float] = defaultdict(float)
        for call in last:
            _add_excess(more, call, rank, works)
        (tag, where), ns = max(more.items(), key=lambda item: item[1], default=(("", ""), 0.0))
        if ns <= 0:
            tag, where, ns = "", "", 0.0
        rows.append(StragglerRow(rank, len(mine), len(last), alone / 1e6, tag, where, ns / 1e6))
    return rows


def _add_excess(
    more: dict[tuple[str, str], float], call: CollectiveCall, rank: int, works: Sequence[Work]
) -> None:
    """Add, for each tag, how much longer it took before a call than on the other ranks."""
    position = dict(zip(call.ranks, call.position, strict=True))
    for key, before in works[rank].items():
        others = [
            float(works[r][key][at]) if key in works[r] else 0.0
            for r, at in position.items()
            if r != rank
        ]
        more[key] += float(before[position[rank]]) - float(np.median(others))
