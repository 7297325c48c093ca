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
    kernels = kernel_rows(analysis)
    rows = operator_rows(analysis)
    if analysis.on_gpu:
        whole = sum(row.ms for row in kernels)
        by_operator = [(r.gpu_self_ms, r.calls, r.name) for r in rows]
    else:
        whole = sum(row.self_cpu_ms for row in rows)
        by_operator = [(r.self_cpu_ms, r.calls, r.name) for r in rows]
    by_kernel = [(r.ms, r.calls, r.name) for r in kernels if _ELEMENTWISE_KERNEL.search(r.name)]
    by_operator = [row for row in by_operator if row[0] and _ELEMENTWISE_OPERATOR.match(row[2])]
    chosen = max(by_kernel, by_operator, key=lambda rows: sum(ms for ms, _, _ in rows))
    spent, calls = sum(ms for ms, _, _ in chosen), sum(count for _, count, _ in chosen)
    if spent and calls >= LEAST_CALLS:
        slowest = max(chosen)
        yield Evidence(
            slowest[2],
            f"and {len(chosen) - 1} more kinds of elementwise operation take {spent:,.1f} ms in "
            f"{calls:,} calls; each reads and writes all its data",
            spent / whole,
            slowest[0],
        )
