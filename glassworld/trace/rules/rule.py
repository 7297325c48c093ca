"""What the advice consists of: rules, the evidence they find, and findings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from glassworld.profiling import registry as tags
from glassworld.trace.timeline.analysis import Analysis

OF_A_BLOCK = "of a block"
"""The unit of what is measured against `scale_ms`."""

MATTERS = 0.005
"""A finding that promises a gain must promise this share of the whole trace's time."""


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

    @property
    def measured(self) -> str:
        """The value and the threshold in words."""
        value, least = (_amount(x, self.threshold) for x in (self.value, self.threshold))
        return f"{value} {self.unit}, threshold {least}"


def _amount(value: float, threshold: float) -> str:
    """A share in percent where the threshold is one."""
    return f"{value:.0%}" if threshold < 1 else f"{value:.3g}"


@dataclass(frozen=True)
class Evidence:
    """What a rule looks at: a finding if `value` exceeds the rule's threshold.

    `gain_ms` is what the change can save at most; None where it saves no time. `change` is
    given where it depends on what was found.
    """

    tag: str
    what: str
    value: float
    gain_ms: float | None
    change: str = ""


@dataclass(frozen=True)
class Rule:
    """One piece of advice; `fires_when` says in words what `evidence` measures.

    `change` is for any program, `engine_change` what the engine has for it, said of its own runs.
    """

    name: str
    fires_when: str
    threshold: float
    unit: str
    change: str
    evidence: Callable[[Analysis], Iterable[Evidence]]
    engine_change: str = ""

    @property
    def limit(self) -> str:
        """The threshold in words."""
        return f"{_amount(self.threshold, self.threshold)} {self.unit}"

    def findings(self, analysis: Analysis) -> list[Finding]:
        """What the trace gives this rule to say."""
        least = MATTERS * analysis.window_ns / 1e6
        blockless = self.unit == OF_A_BLOCK and not len(analysis.tree.where(tags.BLOCK))
        change = self.change
        if self.engine_change and not tags.REGISTRY.keys().isdisjoint(analysis.tree.patterns):
            change = f"{change}; here: {self.engine_change}"
        return [
            Finding(
                self.name,
                found.tag,
                found.what,
                found.value,
                self.threshold,
                "of the trace" if blockless else self.unit,
                found.change or change,
                found.gain_ms or 0.0,
            )
            for found in self.evidence(analysis)
            if found.value > self.threshold and (found.gain_ms is None or found.gain_ms > least)
        ]


def scale_ms(analysis: Analysis) -> float:
    """What a stall is measured against: a block, or the whole window without blocks."""
    found = analysis.tree.cpu_ns[analysis.tree.where(tags.BLOCK)]
    return float(np.median(found)) / 1e6 if len(found) else analysis.window_ns / 1e6
