"""The findings of a trace, by rule and tag; and the noise that must not cause any."""

import random

from glassworld.trace import analyze
from glassworld.trace.rules.rule import advise


def findings(path):
    return {(finding.rule, finding.tag): finding for finding in advise(analyze(path))}


def only(path):
    found = findings(path)
    assert len(found) == 1, list(found)
    return next(iter(found.values()))


def preempted(seed):
    """Return delays of a loaded machine, which now and then takes the processor away."""
    generator = random.Random(seed)

    def slow(**_):
        return generator.uniform(2_000, 18_000) if generator.random() < 0.05 else 0.0

    return slow
