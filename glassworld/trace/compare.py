"""What changed between two runs, by tag, with an estimate of the noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from glassworld.errors import TraceError
from glassworld.trace.analysis import Analysis
from glassworld.trace.tables import Floats

SIGMAS = 3.0
_TINY_MS = 0.001


@dataclass(frozen=True)
class Change:
    """A pattern's time per instance in two runs; milliseconds, shares of the time before.

    `noise` is the standard error of `change`, from the repeated instances; None where either run
    has fewer than three, so nothing can be said. `verdict`: slower, faster, same or unknown.
    """

    path: tuple[str, ...]
    before_ms: float
    after_ms: float
    instances: tuple[int, int]
    change: float
    noise: float | None
    verdict: str
    total_ms: float
    """What the change amounts to over all instances of the second run."""


@dataclass(frozen=True)
class Comparison:
    """All tags in both runs, the largest change first, and those in only one of them."""

    changes: list[Change]
    only_before: list[str]
    only_after: list[str]

    def regressions(self, over: float) -> list[Change]:
        """The tags that became slower by more than the share `over` and more than the noise."""
        return [c for c in self.changes if c.verdict == "slower" and c.change > over]


def compare(before: Analysis, after: Analysis) -> Comparison:
    """Align two analyses by paths of patterns and compare their median instances.

    Raises `TraceError` if they have no tag in common.
    """
    first, second = _samples(before), _samples(after)
    both = [path for path in first if path in second]
    if not both:
        raise TraceError(
            f"{before.trace.path} and {after.trace.path}: no tag is in both, so there is nothing "
            "to compare; use two traces of the same program"
        )
    changes = [_change(path, first[path], second[path]) for path in both]
    return Comparison(
        sorted(changes, key=lambda change: -abs(change.total_ms)),
        [" > ".join(path) for path in first if path not in second],
        [" > ".join(path) for path in second if path not in first],
    )


def _samples(analysis: Analysis) -> dict[tuple[str, ...], Floats]:
    """The instances' times of every path of patterns."""
    groups = analysis.tree.by_pattern
    times = analysis.time_ns(np.arange(len(analysis.tree))) / 1e6
    order = np.argsort(groups.of, kind="stable")
    bounds = np.searchsorted(groups.of[order], np.arange(len(groups) + 1))
    return {
        groups.path(g, analysis.tree.patterns): times[order[bounds[g] : bounds[g + 1]]]
        for g in range(len(groups))
    }


def _change(path: tuple[str, ...], before: Floats, after: Floats) -> Change:
    old, new = float(np.median(before)), float(np.median(after))
    change = (new - old) / old if old > _TINY_MS else 0.0
    noise = None
    if min(len(before), len(after)) >= 3 and old > _TINY_MS:
        noise = float(np.hypot(_error(before), _error(after))) / old
    if noise is None:
        verdict = "unknown"
    elif abs(change) <= SIGMAS * noise or abs(new - old) < _TINY_MS:
        verdict = "same"
    else:
        verdict = "slower" if change > 0 else "faster"
    return Change(
        path, old, new, (len(before), len(after)), change, noise, verdict, (new - old) * len(after)
    )


def _error(values: Floats) -> float:
    """The standard error of the median, from the median absolute deviation.

    1.4826 makes the deviation a standard deviation for normal noise, 1.2533 is the median's
    efficiency; half the spread of so few values as five is its floor.
    """
    deviation = 1.4826 * float(np.median(np.abs(values - np.median(values))))
    if len(values) < 6:
        deviation = max(deviation, float(values.max() - values.min()) / 2)
    return float(1.2533 * deviation / np.sqrt(len(values)))
