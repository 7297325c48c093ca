"""Place operators on the roofline, by the shapes of their inputs, where a trace recorded them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from glassworld.trace.analyzers.flops import Cost
from glassworld.trace.analyzers.operator_roofline.counted_calls import (
    CountedCalls,
    counted_calls,
)
from glassworld.trace.analyzers.operator_roofline.operator_cost import OperatorCost, operator_cost
from glassworld.trace.analyzers.peak_rates import PeakRates, peak_rates_by_dtype
from glassworld.trace.reading.columns import Trace
from glassworld.trace.timeline.analysis import Analysis
from glassworld.trace.timeline.merged import MergedAnalysis
from glassworld.trace.timeline.rows import largest_first


@dataclass(frozen=True)
class ShapeGroup:
    """All calls of an operator with the same shapes, type, FLOPs and bytes.

    `flops` and `bytes` are of all calls; the bytes are the least that they move: each input read
    once, each result written once. `gflops` and `gbps` are the rates reached, `intensity` the FLOPs
    per byte. The last four are empty or None without peak rates for the type: `roof_gflops` is the
    lower of the peak arithmetic rate and intensity times the peak copy rate, `bound` names which,
    `roof_share` is the reached share of it and `roof_ms` the time at it.
    """

    operator: str
    shapes: tuple[tuple[int, ...], ...]
    dtype: str
    calls: int
    ms: float
    share: float
    flops: int
    bytes: int
    gflops: float
    gbps: float
    intensity: float
    roof_gflops: float | None
    roof_share: float | None
    roof_ms: float | None
    bound: str


@dataclass(frozen=True)
class ShapeRoofline:
    """The groups, longest first, and the time that is not in them; milliseconds.

    `total_ms` adds up the durations of all GPU operations (`on_gpu`), or of all outermost
    operators. `counted_ms` is the groups' part of it, `other_operators_ms` the part of operators
    without a formula or without recorded shapes, `outside_ms` that of GPU operations that no
    operator launched. `calls_without_gpu_work` are left out.
    """

    on_gpu: bool
    total_ms: float
    counted_ms: float
    other_operators_ms: float
    outside_ms: float
    calls_without_gpu_work: int
    groups: list[ShapeGroup]


def roofline_by_shape(analysis: Analysis) -> ShapeRoofline:
    """Return operators with a known FLOP formula, by the shapes of their inputs."""
    known = analysis.derived.get("roofline_by_shape")
    if not isinstance(known, ShapeRoofline):
        known = analysis.derived["roofline_by_shape"] = _roofline(analysis)
    return known


def _roofline(analysis: Analysis) -> ShapeRoofline:
    trace = analysis.whole if isinstance(analysis, MergedAnalysis) else analysis.trace
    costs = _costs(trace)
    rows = trace.shaped_ops.to_array()
    pairs = zip(rows["name"].tolist(), rows["inputs"].tolist(), strict=True)
    calls = counted_calls(trace, np.array([costs[pair] is not None for pair in pairs], dtype=bool))
    counted, operators = int(calls.ns.sum()), analysis.operators
    total = int((analysis.kernels.total if analysis.on_gpu else operators.outermost).sum())
    by_operators = operators.launched_ns if analysis.on_gpu else total
    return ShapeRoofline(
        on_gpu=analysis.on_gpu,
        total_ms=total / 1e6,
        counted_ms=counted / 1e6,
        other_operators_ms=(by_operators - counted) / 1e6,
        outside_ms=(total - by_operators) / 1e6,
        calls_without_gpu_work=calls.without_gpu_work,
        groups=_groups(trace, calls, costs, total) if counted else [],
    )


_Costs = dict[tuple[int, int], OperatorCost | None]


def _costs(trace: Trace) -> _Costs:
    """Return the work of a call by its name and its inputs."""
    rows = trace.shaped_ops.to_array()
    pairs = np.unique(rows[["name", "inputs"]]).tolist()
    return {
        (name, inputs): operator_cost(trace.names[name], trace.inputs[inputs])
        for name, inputs in pairs
    }


def _groups(trace: Trace, calls: CountedCalls, costs: _Costs, total_ns: int) -> list[ShapeGroup]:
    sums: dict[tuple[str, OperatorCost], list[int]] = defaultdict(lambda: [0, 0])
    columns = (calls.rows["name"], calls.rows["inputs"], calls.ns)
    for name, inputs, ns in zip(*(column.tolist() for column in columns), strict=True):
        if cost := costs[name, inputs]:
            of_group = sums[trace.names[name], cost]
            of_group[0] += 1
            of_group[1] += ns
    rates = peak_rates_by_dtype(trace.metadata, on_gpu=len(trace.device_rows) > 0)
    groups = [
        _group(operator, cost, count, ns, total_ns, rates)
        for (operator, cost), (count, ns) in sums.items()
        if ns
    ]
    return sorted(groups, key=lambda g: (*largest_first(g.ms, g.operator), g.shapes, g.dtype))


def _group(
    operator: str,
    cost: OperatorCost,
    count: int,
    ns: int,
    total_ns: int,
    rates: Callable[[str], PeakRates | None],
) -> ShapeGroup:
    flops, moved, peak = count * cost.flops, count * cost.bytes, rates(cost.dtype)
    roof, bound, ideal = None, "", None
    if peak:
        # `elements` are bytes here, so an element has one.
        work = Cost(elements=moved, **{_rate(cost): flops})
        ideal = peak.ideal_ms(work, 1)
        roof, bound = peak.roof_gflops(work, 1)
    return ShapeGroup(
        operator=operator,
        shapes=cost.shapes,
        dtype=cost.dtype,
        calls=count,
        ms=ns / 1e6,
        share=ns / total_ns,
        flops=flops,
        bytes=moved,
        gflops=flops / ns,
        gbps=moved / ns,
        intensity=flops / moved,
        roof_gflops=roof,
        roof_share=flops / ns / roof if roof else None,
        roof_ms=ideal,
        bound=bound,
    )


def _rate(cost: OperatorCost) -> str:
    return "conv_flops" if cost.is_convolution else "matmul_flops"


def shape_remarks(analysis: Analysis) -> list[str]:
    """Say how much of the time the groups cover, and what is not in them."""
    roofline = roofline_by_shape(analysis)
    whole = roofline.total_ms or 1.0
    kind = "GPU operations' durations" if roofline.on_gpu else "operators' CPU time"
    remarks = [
        f"{roofline.counted_ms / whole:.0%} of the {kind} are in these operators, "
        f"{roofline.other_operators_ms / whole:.0%} in operators without a formula or without "
        "recorded shapes."
    ]
    if roofline.outside_ms >= 0.005 * whole:
        remarks.append(
            f"{roofline.outside_ms / whole:.0%} were launched outside of operators, as the "
            "kernels of graphs are."
        )
    if roofline.calls_without_gpu_work:
        remarks.append(
            f"Calls that ran nothing on the GPU are left out: {roofline.calls_without_gpu_work:,}."
        )
    return remarks
