"""What the advice consists of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from glassworld.profiling import registry as tags
from glassworld.trace.analysis import Analysis
from glassworld.trace.tables import Floats


@dataclass(frozen=True)
class Finding:
    """Something to change. `value` beyond `threshold` is the evidence; `gain_ms` the promise.

    `tag` names the tag (or operation) at fault, `change` says what to do.
    """

    rule: str
    tag: str
    what: str
    value: float
    threshold: float
    unit: str
    change: str
    gain_ms: float


def scale_ms(analysis: Analysis) -> float:
    """What a stall is measured against: a block, or the whole window without blocks."""
    blocks: Floats = np.asarray(analysis.tree.rows["dur"][analysis.tree.where(tags.BLOCK)] / 1e6)
    return float(np.median(blocks)) if len(blocks) else analysis.window_ns / 1e6
