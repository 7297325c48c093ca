"""Rules about single instances of a tag that took far longer than the others of their kind.

On a machine that does other things too, some instance is slow at any time. So an instance is not
compared only with its kind: its excess must also stand far above the usual excesses of the same
run, and be longer than the time for which a scheduler takes a thread's processor away.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from glassworld.trace.analyzers.blocks import BLOCK_PARTS
from glassworld.trace.reading.columns import Floats, Ints, Mask
from glassworld.trace.rules.rule import OF_A_BLOCK, Evidence, rule, scale_ms
from glassworld.trace.timeline.analysis import Analysis
from glassworld.trace.timeline.intervals import covered_ns
from glassworld.trace.timeline.stats import (
    LEAST_GROUP,
    OUTLIER_DEVIATIONS,
    GroupExcess,
    group_excess,
    group_members,
    robust_std,
)

TIMES_USUAL = 4.0  # the excess, in units of the run's usual large excess
USUAL_RANK = 4  # which of the run's largest excesses is the usual large one; 0 is the largest
SCHEDULER_MS = 30.0  # for so long a loaded system takes a thread's processor away
SEVERAL = 1.5  # a tag with its parts may suffer several usual excesses at once
MULTIPLE = 2.5  # self time, in units of the median of its kind
HALF_MORE = 1.5  # time with all parts, in units of the median of its kind
EXPLAINED = 0.6  # the share of an excess that one part of the tag, compiling or loading explains


def _excess(analysis: Analysis, values: Floats) -> GroupExcess:
    """Compare `values` with the same tag elsewhere in the run, the first block apart."""
    tree = analysis.tree
    return group_excess(values, tree.by_pattern.of, tree.dims["block"] != 0)


def _threshold(analysis: Analysis, own: GroupExcess) -> float:
    """Return the least excess, in milliseconds, that is not noise in this run."""
    warm = own.excess[analysis.tree.dims["block"] != 0]
    spikes = np.sort(warm[warm > 0])[::-1]
    rank = min(USUAL_RANK, len(spikes) // 4)
    usual = float(spikes[rank]) if len(spikes) else 0.0
    return max(TIMES_USUAL * usual, 0.0 if analysis.on_gpu else SCHEDULER_MS)


def _instances(analysis: Analysis) -> tuple[GroupExcess, GroupExcess, Ints, Ints]:
    """Return excesses of self and of whole time, and the instances far above by each."""
    everything = np.arange(len(analysis.tree))
    own = _excess(analysis, analysis.self_ns(everything) / 1e6)
    whole = _excess(analysis, analysis.time_ns(everything) / 1e6)
    least = _threshold(analysis, own)
    stalls = (own.excess > least) & own.far & (own.excess > (MULTIPLE - 1) * own.median)
    stalls &= _compiling_ms(analysis) < EXPLAINED * own.excess
    slow = (whole.excess > SEVERAL * least) & whole.far
    slow &= whole.excess > (HALF_MORE - 1) * whole.median
    slow &= _compiling_ms(analysis) < EXPLAINED * whole.excess
    return own, whole, np.flatnonzero(stalls), np.flatnonzero(slow)


def _compiling_ms(analysis: Analysis) -> Floats:
    """Return for how long torch.compile compiled in each instance; that has a rule of its own."""
    tree, compiling = analysis.tree, analysis.compiled.runs.compiling
    return covered_ns(compiling, tree.rows["start"], tree.forest.end) / 1e6


def _loading(analysis: Analysis) -> Mask:
    """Mark the instances whose CPU time is that of a DataLoader's calls: these have a rule."""
    tree, loading = analysis.tree, analysis.data_loading
    if analysis.on_gpu or not len(loading.calls):
        return np.zeros(len(tree), dtype=bool)
    inside = covered_ns(loading.intervals, tree.rows["start"], tree.forest.end) == tree.cpu_ns
    mask: Mask = inside & (tree.rows["thread"] == loading.calls["thread"][0])
    return mask


@rule(
    name="stall",
    fires_when=(
        "one instance of a tag has this much of a block more self time than its kind, or a pause "
        "as long precedes it"
    ),
    threshold=0.20,
    unit=OF_A_BLOCK,
    change=(
        "look for a wait at this moment: I/O, a lock, garbage collection, another process on the "
        "machine"
    ),
)
def stalls(analysis: Analysis) -> Iterable[Evidence]:
    """Yield instances after the first block whose self time is far above their kind's."""
    tree, scale = analysis.tree, scale_ms(analysis)
    own, _, stalled, _ = _instances(analysis)
    stalled = stalled[(tree.dims["block"][stalled] != 0) & ~_loading(analysis)[stalled]]
    for i in stalled.tolist():
        yield Evidence(
            analysis.tree.instance_name(i),
            f"took {own.excess[i] + own.median[i]:.1f} ms of self time at {_at(analysis, i)}; "
            f"usually it takes {own.median[i]:.1f} ms, so this is a single stall",
            float(own.excess[i]) / scale,
            float(own.excess[i]),
        )
    yield from _pauses(analysis, _threshold(analysis, own))


def _at(analysis: Analysis, instance: int) -> str:
    """Say when and in which block, step, layer and frame an instance began."""
    tree = analysis.tree
    start = (int(tree.rows["start"][instance]) - analysis.origin_ns) / 1e9
    numbers = {name: int(tree.dims[name][instance]) for name in ("block", "step", "layer", "frame")}
    where = ", ".join(f"{name} {number}" for name, number in numbers.items() if number >= 0)
    return f"{start:.2f} s" + (f" ({where})" if where else "")


def _pauses(analysis: Analysis, least: float) -> Iterator[Evidence]:
    """Yield long pauses between two tags of a kind, in a tag too rare to be compared itself."""
    tree, scale = analysis.tree, scale_ms(analysis)
    loading = analysis.data_loading.intervals
    number = np.bincount(tree.pattern, minlength=len(tree.patterns))
    in_time = np.argsort(tree.rows["start"], kind="stable")
    for members in group_members(tree.pattern[in_time]):
        instances = in_time[members]
        inside = instances[tree.forest.parent[instances] >= 0]
        around = tree.forest.parent[inside]
        rare = number[tree.pattern[around]] < LEAST_GROUP
        next_to = np.flatnonzero(rare[1:] & (around[1:] == around[:-1])) + 1
        ended, began = tree.forest.end[inside[next_to - 1]], tree.rows["start"][inside[next_to]]
        pauses = (began - ended) / 1e6
        if len(pauses) < LEAST_GROUP:
            continue
        usual, deviation = float(np.median(pauses)), robust_std(pauses)
        far = pauses - usual > max(least, OUTLIER_DEVIATIONS * deviation, usual)
        far &= covered_ns(loading, ended, began) < EXPLAINED * (began - ended)
        for i in np.flatnonzero(far):
            yield Evidence(
                analysis.tree.instance_name(int(inside[next_to[i]])),
                f"started {pauses[i]:.1f} ms after the previous one had ended; usually it starts "
                f"{usual:.1f} ms after it",
                float(pauses[i] - usual) / scale,
                float(pauses[i] - usual),
                "look at what runs between the two: a callback, writing files, a lock",
            )


@rule(
    name="slow-once",
    fires_when=(
        "one instance of a tag takes this much of a block longer than its kind, and no single "
        "part of it is at fault"
    ),
    threshold=0.20,
    unit=OF_A_BLOCK,
    change=(
        "everything was slow for a while: look for another process, a lower clock rate, or a lack "
        "of memory"
    ),
)
def slow_instances(analysis: Analysis) -> Iterable[Evidence]:
    """Yield instances after the first block that are slow in several of their parts."""
    tree, scale = analysis.tree, scale_ms(analysis)
    own, whole, stalled, slow = _instances(analysis)
    slow = slow[tree.dims["block"][slow] != 0]
    explained = np.zeros(len(tree) + 1)  # the largest excess of one part inside
    np.maximum.at(explained, tree.forest.parent[slow], whole.excess[slow])
    np.maximum.at(explained, stalled, own.excess[stalled])
    slow = slow[(explained[slow] < EXPLAINED * whole.excess[slow]) & ~_loading(analysis)[slow]]
    for instance in slow.tolist():
        i = _part_of_block(analysis, instance, whole)
        yield Evidence(
            analysis.tree.instance_name(i),
            f"took {whole.excess[i] + whole.median[i]:.1f} ms at {_at(analysis, i)}; usually it "
            f"takes {whole.median[i]:.1f} ms. Several of its parts were slow",
            float(whole.excess[i]) / scale,
            float(whole.excess[i]),
        )


def _part_of_block(analysis: Analysis, instance: int, whole: GroupExcess) -> int:
    """Return the part of a block that is slow because of `instance`; else `instance` itself."""
    for pattern in BLOCK_PARTS:
        part = int(analysis.tree.ancestor(np.array([instance]), pattern)[0])
        if part >= 0 and whole.excess[instance] > EXPLAINED * whole.excess[part]:
            return part
    return instance


@rule(
    name="slow-start",
    fires_when=(
        "an instance in the first block has this much of a block more self time than later ones"
    ),
    threshold=0.50,
    unit=OF_A_BLOCK,
    change=(
        "warm up once before the run: compilation, tuning and first allocations happen here; or "
        "it is a stall"
    ),
)
def slow_start(analysis: Analysis) -> Iterable[Evidence]:
    """Yield instances in the first block whose self time is far above that of later ones."""
    tree, scale = analysis.tree, scale_ms(analysis)
    own, _, stalled, _ = _instances(analysis)
    for i in stalled[tree.dims["block"][stalled] == 0].tolist():
        yield Evidence(
            analysis.tree.instance_name(i),
            f"has {own.excess[i] + own.median[i]:.1f} ms of self time in the first block, and "
            f"{own.median[i]:.1f} ms in later ones",
            float(own.excess[i]) / scale,
            float(own.excess[i]),
        )
