"""A rule about the time in which a training run waits for its data."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from glassworld.trace.rules.rule import Evidence, rule
from glassworld.trace.timeline.analysis import Analysis
from glassworld.trace.timeline.rows import WHOLE_RUN

MOST = 0.5  # of the lost time, in one call: then the change is about that call
LEAST_CALLS = 3  # fewer do not tell one of them from the others
_WORKERS = "_MultiProcessing"
_MORE_WORKERS = (
    "load faster: more workers (num_workers), persistent_workers=True, a larger prefetch_factor, "
    "or less work per sample"
)
_START_ONCE = (
    "most of it is the first call, in which the workers start: set persistent_workers=True, so "
    "that later epochs do not start them again, and record after the first steps"
)
_ONE_CALL = (
    "most of it is one call: look at what it reads or waits for, such as slow storage, a large "
    "file or a lock"
)


@rule(
    name="data-loading",
    fires_when=(
        "the steps' own thread spends this share of the trace in a DataLoader (with a GPU: while "
        "the GPU idles)"
    ),
    threshold=0.10,
    unit="of the trace",
    change="load in worker processes: DataLoader(num_workers=...)",
)
def data_loading(analysis: Analysis) -> Iterable[Evidence]:
    """Yield what the calls of DataLoaders cost: of those with workers, and of those without."""
    loading, names = analysis.data_loading, analysis.trace.names
    of_workers = np.array([_WORKERS in names[name] for name in loading.calls["name"]], dtype=bool)
    for workers in (False, True):
        mine = of_workers == workers
        calls, lost = loading.calls[mine], loading.lost_ns[mine]
        total = int(lost.sum())
        if not total:
            continue
        longest = int(np.argmax(lost))
        change = _MORE_WORKERS if workers else ""
        if len(calls) >= LEAST_CALLS and lost[longest] > MOST * total:
            change = _START_ONCE if workers and not longest else _ONE_CALL
        where = "in worker processes" if workers else "in the run's own process"
        yield Evidence(
            WHOLE_RUN,
            f"waits {total / 1e6:,.1f} ms for data{', with an idle GPU,' * analysis.on_gpu} in "
            f"{len(calls):,} calls of a DataLoader that loads {where}; the longest wait takes "
            f"{lost[longest] / 1e6:,.1f} ms at "
            f"{(calls['start'][longest] - analysis.origin_ns) / 1e9:.2f} s"
            f"{_work(analysis, {names[name] for name in calls['name']}, total / 1e6)}",
            total / analysis.duration_ns,
            total / 1e6,
            change,
        )


def _work(analysis: Analysis, loaders: set[str], total_ms: float) -> str:
    """Name what the loaders run in most of the gaps in the GPU's work, if one thing does."""
    host = analysis.idle.host
    inside = [name for name, work in host.items() if work.tag in loaders and name not in loaders]
    most = max(inside, key=lambda name: host[name].ms, default="")
    return f", most of it in {most}" if most and host[most].ms > MOST * total_ms else ""
