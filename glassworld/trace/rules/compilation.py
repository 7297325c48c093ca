"""A rule about the time in which torch.compile compiles."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from glassworld.trace.rules.rule import Evidence, rule
from glassworld.trace.timeline.analysis import Analysis
from glassworld.trace.timeline.rows import WHOLE_RUN


@rule(
    name="compilation",
    fires_when="torch.compile compiles for this share of the trace",
    threshold=0.01,
    unit="of the trace",
    change=(
        "run every input shape a few times before you record; if it compiles again later, "
        "TORCH_LOGS=recompiles says why"
    ),
)
def compilation(analysis: Analysis) -> Iterable[Evidence]:
    """Yield how long torch.compile compiles."""
    start, end = analysis.compiled.runs.compiling.T
    if not len(start):
        return
    took = (end - start) / 1e6
    longest, total = int(np.argmax(took)), float(took.sum())
    how_often = "once" if len(took) == 1 else f"{len(took):,} times"
    yield Evidence(
        WHOLE_RUN,
        f"compiles with torch.compile {how_often}, for {total:,.1f} ms in total; the longest takes "
        f"{took[longest]:,.1f} ms at {(start[longest] - analysis.origin_ns) / 1e9:.2f} s",
        total * 1e6 / analysis.duration_ns,
        total,
    )
