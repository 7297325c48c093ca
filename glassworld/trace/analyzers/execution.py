"""Say how a run executes: which modules take the time, and what is compiled or replayed."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from glassworld.profiling.registry import REGISTRY
from glassworld.trace.analyzers.operators import NEARLY_ALL, kernel_rows, operator_rows
from glassworld.trace.analyzers.run_config import run_config
from glassworld.trace.timeline.analysis import Analysis
from glassworld.trace.timeline.merged import MergedAnalysis
from glassworld.trace.timeline.rows import largest_first

MOSTLY = 0.8  # of all tags' self time, in one kind of tag: then tags do not explain the run
MOST_LAUNCHED = 0.5  # of the time, by modules or operators: then they say what is slow
_COMPILED = re.compile(r"Torch-Compiled Region|CompiledFxGraph|CompiledFunction")


@dataclass(frozen=True)
class SlowPart:
    """A class of modules, an operator or a kernel: its self time, its share of that of all.

    `kind` is `module`, `operator` or `kernel`.
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


def only_memory(analysis: Analysis) -> bool:
    """Return True for a record of memory alone, such as a snapshot, with or without tags."""
    trace = analysis.whole if isinstance(analysis, MergedAnalysis) else analysis.trace
    others = (trace.ops, trace.launch_rows, trace.device_rows, trace.python)
    return len(trace.memory) > 0 and not any(len(table) for table in others)


def is_engine_run(analysis: Analysis) -> bool:
    """Return True for a run of this engine: it has one of its tags, or its configuration."""
    engine_tags = not REGISTRY.keys().isdisjoint(row.pattern for row in analysis.patterns)
    return engine_tags or run_config(analysis.trace.metadata) is not None


def tags_explain(analysis: Analysis) -> bool:
    """Return True for the engine's runs, and where no kind of tag has nearly all self time."""
    self_ms: defaultdict[str, float] = defaultdict(float)
    for row in analysis.patterns:
        self_ms[row.pattern] += max(0.0, analysis.self_ms(row))
    if not REGISTRY.keys().isdisjoint(self_ms):
        return True
    return bool(self_ms) and max(self_ms.values()) < MOSTLY * (sum(self_ms.values()) or 1.0)


def slow_parts(analysis: Analysis) -> list[SlowPart]:
    """Return what is slow, the slowest first: modules by class, or operators, or kernels.

    Modules count where their ranges (`nn.Module: ...`) cover half of the time, else operators
    where these do; kernels where neither launched half of the GPU's work.
    """
    modules, operators = _slow_modules(analysis), _slow_operators(analysis)
    whole = _whole_ms(analysis)
    for parts in (modules, operators):
        if parts and sum(part.self_ms for part in parts) >= MOST_LAUNCHED * whole:
            return parts
    if analysis.gpu:
        kernels = kernel_rows(analysis)
        return [SlowPart(k.name, "kernel", k.calls, k.ms, k.share) for k in kernels]
    return operators or modules


def covered_by_parts(analysis: Analysis) -> list[str]:
    """Say how much of the time the slow modules or operators cover, if that is not nearly all."""
    parts, whole = slow_parts(analysis), _whole_ms(analysis)
    covered = sum(part.self_ms for part in parts)
    if not parts or parts[0].kind == "kernel" or not covered < NEARLY_ALL * whole:
        return []
    what = "GPU's busy time" if analysis.on_gpu else "operators' time"
    return [
        f"These {parts[0].kind}s have {covered / whole:.0%} of the {what}; shares are of this "
        "part. The rest ran outside of them."
    ]


def _whole_ms(analysis: Analysis) -> float:
    """Return the GPU's busy time; without a GPU, the operators' CPU time."""
    if analysis.gpu:
        return analysis.gpu.busy_ns / 1e6
    return float(analysis.operators.outermost.sum()) / 1e6


def _slow_modules(analysis: Analysis) -> list[SlowPart]:
    rows = analysis.modules
    spent: defaultdict[str, float] = defaultdict(float)
    count: Counter[str] = Counter()
    for row in rows:
        spent[row.name] += max(0.0, analysis.self_ms(row))
        count[row.name] += row.instances
    return _parts((name, "module", count[name], ms) for name, ms in spent.items())


def _slow_operators(analysis: Analysis) -> list[SlowPart]:
    return _parts(
        (r.name, "operator", r.calls, r.gpu_self_ms if analysis.on_gpu else r.self_cpu_ms)
        for r in operator_rows(analysis)
    )


def _parts(rows: Iterable[tuple[str, str, int, float]]) -> list[SlowPart]:
    """Return those that took any time, the slowest first, with their shares of all."""
    slow = sorted(
        (row for row in rows if row[3] > 0), key=lambda row: largest_first(row[3], row[0])
    )
    whole = sum(ms for *_, ms in slow)
    return [SlowPart(*row, share=row[3] / whole) for row in slow]
