"""What to do about it: rules that fire only on evidence, each with a number and a gain."""

from __future__ import annotations

from glassworld.trace.rules import hardware as rules_machine
from glassworld.trace.rules import outliers as rules_once
from glassworld.trace.rules import trends as rules_run
from glassworld.trace.rules.rule import Finding, Rule
from glassworld.trace.timeline.analysis import Analysis

RULES: tuple[Rule, ...] = (*rules_once.RULES, *rules_run.RULES, *rules_machine.RULES)


def advise(analysis: Analysis) -> list[Finding]:
    """Every finding the trace supports, the largest gain first; often none."""
    found = [finding for rule in RULES for finding in rule.findings(analysis)]
    return sorted(found, key=lambda finding: -finding.gain_ms)
