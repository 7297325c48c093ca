"""What a trace is advised, by rule and tag."""

from glassworld.trace import analyze
from glassworld.trace.advice import advise


def findings(path):
    return {(finding.rule, finding.tag): finding for finding in advise(analyze(path))}


def only(path):
    found = findings(path)
    assert len(found) == 1, list(found)
    return next(iter(found.values()))
