"""What to do about it: rules that fire only on evidence, each with a number and a gain."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from glassworld.trace import rules_machine, rules_run
from glassworld.trace.analysis import Analysis
from glassworld.trace.findings import Finding

RULES: tuple[Callable[[Analysis], Iterable[Finding]], ...] = (
    rules_run.stall,
    rules_run.pause,
    rules_run.slow_step,
    rules_run.slow_layer,
    rules_run.drifts,
    rules_machine.gpu_stall,
    rules_machine.launch_bound,
    rules_machine.sync_bound,
    rules_machine.moving_data,
    rules_machine.pageable_copies,
    rules_machine.attention_backend,
    rules_machine.memory_full,
)


def advise(analysis: Analysis) -> list[Finding]:
    """Every finding the trace supports, the largest gain first; often none."""
    found = [finding for rule in RULES for finding in rule(analysis)]
    return sorted(found, key=lambda finding: -finding.gain_ms)
