"""Say how a run executes: which modules take the time, and what is compiled or replayed."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass

import numpy as np

from glassworld.profiling.registry import REGISTRY
from glassworld.trace.analyzers.operators import kernel_rows, operator_rows
from glassworld.trace.timeline.analysis import Analysis

MOSTLY = 0.8  # of all tags' self time, in one kind of tag: then tags do not explain the run
MOST_LAUNCHED = 0.5  # of the GPU's busy time, by operators: then they say what is slow
_COMPILED = re.compile(r"Torch-Compiled Region|CompiledFxGraph|CompiledFunction")


@dataclass(frozen=True)
class SlowPart:
    """A kind of module, or an operator: its self time and its share of the self time of all.

    `kind` is `module` or `operator`.
    """

    name: str
    kind: str
    count: int
    self_ms: float
    share: float


def runs_compiled(analysis: Analysis) -> bool:
    """Return True if code that torch.compile made runs in this trace."""
    used = np.unique(analysis.operators.name).tolist()
    operators = any(_COMPILED.search(analysis.trace.names[name]) for name in used)
    return operators or any(_COMPILED.search(row.name) for row in analysis.patterns)


def replays_graphs(analysis: Analysis) -> bool:
    """Return True if GPU graphs are replayed in this trace."""
    return any("graphlaunch" in name.lower() for name in analysis.calls)


def tags_explain(analysis: Analysis) -> bool:
    """Return True for the engine's runs, and where no kind of tag has nearly all self time."""
    self_ms: defaultdict[str, float] = defaultdict(float)
    for row in analysis.patterns:
        self_ms[row.pattern] += max(0.0, analysis.self_ms(row))
    if not REGISTRY.keys().isdisjoint(self_ms):
        return True
    return bool(self_ms) and max(self_ms.values()) < MOSTLY * (sum(self_ms.values()) or 1.0)


def slow_parts(analysis: Analysis) -> list[SlowPart]:
    """Return modules by self time, the slowest first; without any, operators or else kernels.

    Modules are the `nn.Module` ranges of the trace's Python stacks, added up by class.
    """
    return _slow_modules(analysis) or _slow_operators(analysis)


def _slow_modules(analysis: Analysis) -> list[SlowPart]:
    spent: defaultdict[str, float] = defaultdict(float)
    count: Counter[str] = Counter()
    for row in analysis.modules:
        spent[row.name] += max(0.0, analysis.self_ms(row))
        count[row.name] += row.instances
    whole = sum(spent.values()) or 1.0
    return [
        SlowPart(name, "module", count[name], ms, ms / whole)
        for name, ms in sorted(spent.items(), key=lambda item: -item[1])
        if ms
    ]


def _slow_operators(analysis: Analysis) -> list[SlowPart]:
    """Return the operators; on a GPU the kernels, unless operators launched most of its work."""
    rows = operator_rows(analysis)
    spent = [(row.gpu_self_ms if analysis.on_gpu else row.self_cpu_ms, row) for row in rows]
    whole = sum(ms for ms, _ in spent)
    if analysis.gpu and whole * 1e6 < MOST_LAUNCHED * analysis.gpu.busy_ns:
        kernels = kernel_rows(analysis)
        return [SlowPart(k.name, "kernel", k.calls, k.ms, k.share) for k in kernels]
    return [
        SlowPart(row.name, "operator", row.calls, ms, ms / whole)
        for ms, row in sorted(spent, key=lambda pair: -pair[0])
        if ms
    ]
