"""Rules, the evidence they yield, and the findings that follow from it.

To add a rule, put a module into this folder: a generator of `Evidence` under the decorator
`rule`. The package imports every module of the folder, so nothing else has to name it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from glassworld.profiling import registry as tags
from glassworld.trace.analyzers.execution import runs_compiled
from glassworld.trace.timeline.analysis import Analysis
from glassworld.trace.timeline.rows import WHOLE_RUN, largest_first

OF_A_BLOCK = "of a block"
"""The unit of what is measured against `scale_ms`."""

MATTERS = 0.005
"""A finding that promises a gain must promise this share of the whole trace's time."""


@dataclass(frozen=True)
class Finding:
    """Something to change. `value` beyond `threshold` is the evidence.

    `tag` names the tag (or operation) at fault, `change` says what to do; `gain_ms` is the most
    that it can save.
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
    """Return a number in words: in percent where the threshold is a share."""
    return f"{value:.0%}" if threshold < 1 else f"{value:.3g}"


@dataclass(frozen=True)
class Evidence:
    """What a rule measured in a trace: a finding if `value` exceeds the rule's threshold.

    `gain_ms` is the most that the change can save; None where it saves no time. `change` replaces
    the rule's own where the change depends on what was measured.
    """

    tag: str
    what: str
    value: float
    gain_ms: float | None
    change: str = ""


EvidenceFunction = Callable[[Analysis], Iterable[Evidence]]


@dataclass(frozen=True)
class Rule:
    """One piece of advice; `fires_when` says in words what `evidence` measures.

    `change` is for any program, `compiled_change` for one that is compiled already (if given);
    `engine_change` is added for the engine's own runs.
    """

    name: str
    fires_when: str
    threshold: float
    unit: str
    change: str
    engine_change: str
    compiled_change: str
    evidence: EvidenceFunction

    @property
    def limit(self) -> str:
        """The threshold in words."""
        return f"{_amount(self.threshold, self.threshold)} {self.unit}"

    def findings(self, analysis: Analysis) -> list[Finding]:
        """Return the findings that the trace has evidence for."""
        least = MATTERS * analysis.duration_ns / 1e6
        blockless = self.unit == OF_A_BLOCK and not len(analysis.tree.where(tags.BLOCK))
        change = self.change
        if self.compiled_change and runs_compiled(analysis):
            change = self.compiled_change
        present = {row.pattern for row in analysis.patterns}
        if self.engine_change and not tags.REGISTRY.keys().isdisjoint(present):
            change = f"{change}; here: {self.engine_change}"
        findings = []
        for evidence in self.evidence(analysis):
            gain = None if evidence.gain_ms is None else _possible_gain(analysis, evidence)
            if evidence.value > self.threshold and (gain is None or gain > least):
                findings.append(
                    Finding(
                        self.name,
                        evidence.tag,
                        evidence.what,
                        evidence.value,
                        self.threshold,
                        "of the trace" if blockless else self.unit,
                        evidence.change or change,
                        gain or 0.0,
                    )
                )
        return findings


def _possible_gain(analysis: Analysis, evidence: Evidence) -> float:
    """Return the gain, at most what the tag it names is busy or idle (on a CPU: open)."""
    rows = [row for row in analysis.patterns if evidence.tag in (row.name, row.pattern)]
    gain = evidence.gain_ms or 0.0
    if not rows:
        rows = [row for row in analysis.tags if row.name == evidence.tag]
    if not rows:
        return gain
    if not analysis.on_gpu:
        return min(gain, sum(row.cpu_ms for row in rows))
    return min(gain, max(sum(r.gpu_busy_ms for r in rows), sum(r.gpu_idle_ms for r in rows)))


def idle_tag(analysis: Analysis, ms: float, within: str = "") -> str:
    """Return the outermost tag that idles at least `ms`, or `WHOLE_RUN`.

    With `within`, it is the tag of this name if that idles so long.
    """
    rows = [row for row in analysis.patterns if len(row.path) == 1]
    if within:
        rows = [row for row in analysis.patterns if within in (row.name, row.pattern)]
    worst = min(rows, key=lambda row: largest_first(row.gpu_idle_ms, row.name), default=None)
    return worst.name if worst and worst.gpu_idle_ms >= ms else WHOLE_RUN


RULES: list[Rule] = []
"""All rules: the package's modules in alphabetical order, each from top to bottom."""


def rule(
    *,
    name: str,
    fires_when: str,
    threshold: float,
    unit: str,
    change: str,
    engine_change: str = "",
    compiled_change: str = "",
) -> Callable[[EvidenceFunction], EvidenceFunction]:
    """Register the decorated function as the evidence of a rule."""

    def register(evidence: EvidenceFunction) -> EvidenceFunction:
        RULES.append(
            Rule(
                name, fires_when, threshold, unit, change, engine_change, compiled_change, evidence
            )
        )
        return evidence

    return register


def advise(analysis: Analysis) -> list[Finding]:
    """Return every finding that the trace has evidence for, the largest gain first; often none."""
    findings = [finding for rule in RULES for finding in rule.findings(analysis)]
    return sorted(findings, key=lambda f: largest_first(f.gain_ms, f.rule, f.tag, f.what))


def scale_ms(analysis: Analysis) -> float:
    """Return the time that a stall is a share of: a block, or the whole window without blocks."""
    blocks = analysis.tree.cpu_ns[analysis.tree.where(tags.BLOCK)]
    return float(np.median(blocks)) / 1e6 if len(blocks) else analysis.duration_ns / 1e6
