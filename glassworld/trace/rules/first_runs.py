"""Rules about what only the first run of a kernel takes: loading, compiling, autotuning."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from glassworld.trace.analyzers.bottleneck import LEAST_OPERATIONS
from glassworld.trace.reading.columns import Floats, Ints, Mask
from glassworld.trace.rules.rule import Evidence, rule
from glassworld.trace.timeline.analysis import Analysis
from glassworld.trace.timeline.rows import WHOLE_RUN, largest_first

TIMES_LATER = 10.0  # a slow first run, in units of the mean of the later ones
LEAST_LATER = 2  # fewer later runs are no measure: then all kernels' later runs are one
LEAST_EXCESS_NS = 50_000
LEAST_STEPS = 3  # fewer steps do not tell a first one from the others
LAUNCH_ONCE = (
    "warm up once before the run: the first launch of a kernel loads its module or compiles it "
    "(CUDA_MODULE_LOADING=EAGER loads all at the start)"
)


def slow_launches(analysis: Analysis) -> tuple[npt.NDArray[np.void], Floats]:
    """Return the kernels whose first launch was far slower than later ones, and by how much.

    It is in nanoseconds, and at most how long the GPU idled during that launch call.
    """
    runs = analysis.kernel_runs
    slow, excess = _first_excess(runs["first_call_ns"], runs["call_ns"], runs["runs"])
    lost = np.minimum(excess, runs["first_held_ns"])
    slow &= (lost > LEAST_EXCESS_NS) & (runs["first_call"] >= 0)
    return runs[slow], lost[slow]


def _first_excess(first: Ints, total: Ints, runs: Ints) -> tuple[Mask, Floats]:
    """Mark the kernels whose first run takes far longer than the later ones; return the excess."""
    others = runs - 1
    later = float((total - first).sum()) / max(1, int(others.sum()))
    usual = np.where(others >= LEAST_LATER, (total - first) / np.maximum(1, others), later)
    known = (others >= LEAST_LATER) | (int(others.sum()) >= LEAST_OPERATIONS)
    slow: Mask = known & (first > TIMES_LATER * usual)
    return slow, (first - usual).astype(np.float64)


@rule(
    name="slow-first-launch",
    fires_when=(
        "first launches of kernels, each 10 times as long as later ones, idle the GPU for this "
        "share of the trace"
    ),
    threshold=0.05,
    unit="of the trace",
    change=LAUNCH_ONCE,
)
def slow_first_launches(analysis: Analysis) -> Iterable[Evidence]:
    """Yield what first launches of kernels take longer than later ones."""
    kernels, lost = slow_launches(analysis)
    if not len(kernels) or analysis.coverage.gpu_ops < LEAST_OPERATIONS:
        return
    names, most = analysis.trace.names, int(np.argmax(lost))
    ms = float(lost.sum()) / 1e6
    once = "a first launch of a kernel that delays"
    if len(kernels) > 1:
        once = f"first launches of {len(kernels)} kernels that delay"
    yield Evidence(
        WHOLE_RUN,
        f"has {once} the GPU by {ms:,.1f} ms, {lost[most] / 1e6:,.1f} ms of them in "
        f"{names[kernels['first_call'][most]]} for {names[kernels['name'][most]][:60]}",
        ms * 1e6 / analysis.duration_ns,
        ms,
    )


@rule(
    name="one-off-kernels",
    fires_when=(
        "kernels that run in the first step alone, or there 10 times as long as later, take this "
        "share of the GPU's busy time"
    ),
    threshold=0.10,
    unit="of GPU busy time",
    change=(
        "warm up before the run: autotuning (cudnn.benchmark, torch.compile, Triton) tries kernels "
        "in the first step; keep its cache, and keep shapes the same"
    ),
)
def one_off_kernels(analysis: Analysis) -> Iterable[Evidence]:
    """Yield what kernels of the first step take that do not run, or run faster, in later ones."""
    steps, gpu = _steps(analysis), analysis.gpu
    if gpu is None or len(steps) < LEAST_STEPS or analysis.coverage.gpu_ops < LEAST_OPERATIONS:
        return
    (name, start), (_, second) = steps[0], steps[1]
    runs = analysis.kernel_runs
    in_first = (runs["first"] >= start) & (runs["first"] < second)
    alone = in_first & (runs["last"] < second)
    slow, excess = _first_excess(runs["first_dur_ns"], runs["dur_ns"], runs["runs"])
    slow &= in_first & ~alone & (runs["runs"] > LEAST_LATER)
    more = np.where(alone, runs["added_ns"], 0)
    more = np.where(slow, np.minimum(excess, runs["first_added_ns"]), more)
    if not more.any():
        return
    names = [analysis.trace.names[name] for name in runs["name"].tolist()]
    most = min(range(len(names)), key=lambda i: (-int(more[i]), names[i]))
    ms = float(more.sum()) / 1e6
    kinds = ((alone, "that no later step runs"), (slow, "far slower than in later steps"))
    counts = " and ".join(f"{int(of.sum())} kernels {what}" for of, what in kinds if of.any())
    yield Evidence(
        name,
        f"has {counts}: {ms:,.1f} ms in total, {more[most] / 1e6:,.1f} ms of them in "
        f"{names[most][:60]}",
        ms * 1e6 / max(1, gpu.busy_ns),
        ms,
    )


def _steps(analysis: Analysis) -> list[tuple[str, int]]:
    """Return name and start of each step: of a training's, else of the outermost repeated tag."""
    training = analysis.training_steps
    if len(training) >= LEAST_STEPS:
        origin = analysis.origin_ns
        return [(step.name, origin + round(step.start_ms * 1e6)) for step in training]
    rows = [row for row in analysis.patterns if row.instances >= LEAST_STEPS]
    if not rows:
        return []
    chosen = min(rows, key=lambda row: (len(row.path), *largest_first(row.gpu_busy_ms, row.name)))
    tree = analysis.tree
    instances = tree.where(chosen.pattern).tolist()
    return [(tree.instance_name(i), int(tree.rows["start"][i])) for i in instances]
