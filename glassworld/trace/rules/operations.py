"""Rules about operations: one that takes far longer than others, many that could be one."""

from __future__ import annotations

import re
from collections.abc import Iterable

from glassworld.trace.analyzers.bottleneck import LEAST_OPERATIONS
from glassworld.trace.analyzers.operators import kernel_rows, operator_rows
from glassworld.trace.rules.rule import Evidence, rule
from glassworld.trace.timeline.analysis import Analysis
from glassworld.trace.timeline.rows import WHOLE_RUN

TIMES_OTHERS = 10.0  # a long operation, in units of the mean of the others of its name
TIMES_ALL = 100.0  # one without others of its name, in units of the median operation
LEAST_OTHERS = 2
LEAST_CALLS = 20  # of elementwise operations: fewer are not worth fusing
_ELEMENTWISE_KERNEL = re.compile(r"elementwise")
_ELEMENTWISE_OPERATOR = re.compile(
    r"aten::(?:add|sub|rsub|mul|div|neg|pow|exp|log|sqrt|rsqrt|sin|cos|tanh|sigmoid|relu|gelu|silu"
    r"|leaky_relu|clamp|clamp_min|where|masked_fill|maximum|minimum|addcmul|addcdiv|lerp|abs|square"
    r"|reciprocal|erf|floor|round|sign|softplus|elu|mish|hardtanh|hardswish|native_dropout|bernoulli"
    r"|threshold_backward|gelu_backward|silu_backward|tanh_backward|sigmoid_backward)_?$"
)

_OPTIMIZER = "Optimizer.step#"
_OPTIMIZER_CHANGE = (
    "most of them are the optimizer's: give it fused=True, or foreach=True where torch.optim has "
    "no fused form of it"
)

_Calls = tuple[float, int, str]
"""Milliseconds, number of calls, and name."""


@rule(
    name="long-operation",
    fires_when=(
        "one GPU operation takes this share of the GPU's busy time, and 10 times the others of its "
        "name (without others: 100 times the median operation)"
    ),
    threshold=0.10,
    unit="of GPU busy time",
    change=(
        "look at what this call waits for or works on: another rank, an unusual shape, a lower "
        "clock rate; a collective waits for its slowest rank"
    ),
)
def long_operations(analysis: Analysis) -> Iterable[Evidence]:
    """Yield the operations that are far longer than others."""
    gpu = analysis.gpu
    if gpu is None or analysis.coverage.gpu_ops < LEAST_OPERATIONS:
        return
    totals = {row.name: row for row in kernel_rows(analysis)}
    for op in analysis.longest_ops:
        others = totals[op.name].calls - 1
        usual = gpu.op_duration_ns / 1e6
        times = TIMES_ALL
        if others >= LEAST_OTHERS:
            usual, times = (totals[op.name].ms - op.ms) / others, TIMES_OTHERS
        if op.ms > times * usual:
            several = others >= LEAST_OTHERS
            compared = "others of its name take" if several else "the median operation takes"
            yield Evidence(
                op.name,
                f"takes {op.ms:,.1f} ms at {op.start_ms / 1e3:.2f} s in {op.tag or WHOLE_RUN}, "
                f"where {compared} {usual:,.3g} ms",
                op.ms * 1e6 / max(1, gpu.busy_ns),
                op.ms - usual,
            )


@rule(
    name="elementwise",
    fires_when="operations that work element by element, many of them, take this share of the time",
    threshold=0.40,
    unit="of all operations",
    change="fuse them: torch.compile, or a fused kernel for this chain of operations",
    compiled_change=(
        "they run outside the generated code: look for graph breaks (TORCH_LOGS=graph_breaks), or "
        "write a fused kernel"
    ),
)
def elementwise_operations(analysis: Analysis) -> Iterable[Evidence]:
    """Yield what all elementwise operations take together."""
    kinds = _elementwise(analysis)
    kind = max((0, 1), key=lambda kind: _total_ms(kinds[kind]))
    chosen, spent = kinds[kind], _total_ms(kinds[kind])
    calls = sum(count for _, count, _ in chosen)
    if spent and calls >= LEAST_CALLS:
        if analysis.on_gpu:
            whole = sum(row.ms for row in kernel_rows(analysis))
        else:
            whole = sum(row.self_cpu_ms for row in operator_rows(analysis))
        slowest = max(chosen)
        yield Evidence(
            slowest[2],
            f"and {len(chosen) - 1} more kinds of elementwise operation take {spent:,.1f} ms in "
            f"{calls:,} calls; each reads and writes all its data",
            spent / whole,
            slowest[0],
            _OPTIMIZER_CHANGE if _optimizer_ms(analysis, kind) > spent / 2 else "",
        )


def _elementwise(analysis: Analysis, tag: str | None = None) -> tuple[list[_Calls], list[_Calls]]:
    """Return the elementwise kernels and the elementwise operators, under `tag` if it is given."""
    kernels = [
        (row.ms, row.calls, row.name)
        for row in kernel_rows(analysis, tag)
        if _ELEMENTWISE_KERNEL.search(row.name)
    ]
    operators = [
        (row.gpu_self_ms if analysis.on_gpu else row.self_cpu_ms, row.calls, row.name)
        for row in operator_rows(analysis, tag)
        if _ELEMENTWISE_OPERATOR.match(row.name)
    ]
    return kernels, [row for row in operators if row[0]]


def _total_ms(rows: list[_Calls]) -> float:
    return sum(ms for ms, _, _ in rows)


def _optimizer_ms(analysis: Analysis, kind: int) -> float:
    """Return what the operations of one kind take in the optimizers' steps."""
    if not any(row.pattern.startswith(_OPTIMIZER) for row in analysis.patterns):
        return 0.0
    return _total_ms(_elementwise(analysis, _OPTIMIZER)[kind])
