"""What to do about it: rules that fire only on evidence, each with a number and a gain."""

from __future__ import annotations

from glassworld.trace import rules_machine, rules_once, rules_run
from glassworld.trace.analysis import Analysis
from glassworld.trace.findings import Finding, Rule

RULES: tuple[Rule, ...] = (*rules_once.RULES, *rules_run.RULES, *rules_machine.RULES)


def advise(analysis: Analysis) -> list[Finding]:
    """Every finding the trace supports, the largest gain first; often none."""
    found = [finding for rule in RULES for finding in rule.findings(analysis)]
    return sorted(found, key=lambda finding: -finding.gain_ms)
