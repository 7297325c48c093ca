"""Rules about the use of the hardware: launches, waits, copies, attention, memory, roofline."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np

from glassworld.trace.analyzers.bottleneck import (
    IDLE_SHARE,
    LEAST_OPERATIONS,
    SYNC_SHARE,
    find_bottleneck,
)
from glassworld.trace.analyzers.operators import kernel_rows
from glassworld.trace.analyzers.roofline import roofline_by_tag
from glassworld.trace.rules.first_runs import LAUNCH_ONCE, slow_launches
from glassworld.trace.rules.rule import (
    OF_A_BLOCK,
    Evidence,
    idle_tag,
    rule,
    scale_ms,
)
from glassworld.trace.timeline.analysis import Analysis
from glassworld.trace.timeline.idle import IdleGap, launches
from glassworld.trace.timeline.intervals import covered_ns
from glassworld.trace.timeline.memory import peak_bytes
from glassworld.trace.timeline.rows import WHOLE_RUN

TIMES_USUAL = 4.0  # a stall, in units of the run's usual long gap
MOST_IDLE = 0.5  # of the run's idle time, in one tag: then that tag is named
USUAL_RANK = 10  # which of the longest gaps is the usual long one
LARGE_TAG = 0.15  # the least share of the window for which distance from the roofline matters
_COPYING = (
    "aten::cat",
    "aten::copy_",
    "aten::clone",
    "aten::contiguous",
    "aten::constant_pad_nd",
    "aten::_to_copy",
)
_SOFTMAX = ("aten::_softmax", "aten::softmax")


@rule(
    name="gpu-stall",
    fires_when=(
        "one gap in the GPU's work is this much of a block (of the trace, without blocks) and "
        "far beyond the run's other gaps"
    ),
    threshold=0.20,
    unit=OF_A_BLOCK,
    change="move this work off the launching thread, or do it before the run",
)
def gpu_stalls(analysis: Analysis) -> Iterable[Evidence]:
    """Yield the gaps that are far longer than the run's usual long one."""
    if analysis.coverage.gpu_ops < LEAST_OPERATIONS:
        return
    gaps, scale = analysis.gaps, scale_ms(analysis)
    usual = gaps[min(USUAL_RANK, len(gaps) // 2)].ms if len(gaps) > 1 else 0.0
    kernels, lost = slow_launches(analysis)  # which have a rule of their own
    starts = ((kernels["first_gap"] - analysis.origin_ns) / 1e6).tolist()
    once_ms = dict(zip(starts, (lost / 1e6).tolist(), strict=True))
    for gap, loading_ms in zip(gaps, _loading_ms(analysis, gaps), strict=True):
        explained = max(once_ms.get(gap.start_ms, 0.0), loading_ms) > gap.ms / 2
        if gap.ms > TIMES_USUAL * usual and not gap.queued and not explained:
            tag = idle_tag(analysis, gap.ms, gap.tag) if gap.tag else WHOLE_RUN
            inside = f" in {gap.tag}" if tag == WHOLE_RUN and gap.tag else ""
            yield Evidence(
                tag,
                f"left the GPU idle for {gap.ms:.1f} ms at {gap.start_ms / 1e3:.2f} s{inside}, "
                f"before {gap.next_op[:60]}; the CPU was in {gap.culprit or 'nothing recorded'}",
                gap.ms / scale,
                gap.ms,
                LAUNCH_ONCE if launches(gap.culprit) else "",
            )


def _loading_ms(analysis: Analysis, gaps: list[IdleGap]) -> list[float]:
    """Return for how long a DataLoader loads in each gap; that has a rule of its own."""
    start = analysis.origin_ns + np.array([round(gap.start_ms * 1e6) for gap in gaps], np.int64)
    end = start + np.array([round(gap.ms * 1e6) for gap in gaps], np.int64)
    ms: list[float] = (covered_ns(analysis.data_loading.intervals, start, end) / 1e6).tolist()
    return ms


@rule(
    name="host-work",
    fires_when=(
        "the same CPU code runs in this share of the trace while the GPU idles, in several gaps"
    ),
    threshold=0.20,
    unit="of the trace",
    change=(
        "do it on another thread or ahead of time: more loader workers, prefetching, fewer "
        "transformations"
    ),
)
def host_work(analysis: Analysis) -> Iterable[Evidence]:
    """Yield the CPU code that runs in several gaps of the GPU."""
    names = analysis.trace.names
    loaders = {names[name] for name in analysis.data_loading.calls["name"].tolist()}
    for culprit, work in analysis.idle.host.items():
        if work.gaps > 1 and loaders.isdisjoint((culprit, work.tag)):
            yield Evidence(
                culprit,
                f"runs on the CPU in {work.gaps} gaps in which the GPU idles, {work.ms:.0f} "
                f"ms in total, in {work.tag or 'no tag'}",
                work.ms * 1e6 / analysis.duration_ns,
                work.ms,
            )


@rule(
    name="launch-bound",
    fires_when=(
        "the GPU idles this share of the time and operations start within 50 µs of their launch"
    ),
    threshold=IDLE_SHARE,
    unit="of the time",
    change="compile (torch.compile), capture graphs, or give each launch more work: a larger batch",
    compiled_change=(
        "capture graphs, give each launch more work (a larger batch), and look for graph breaks "
        "(TORCH_LOGS=graph_breaks): many launches come from outside the generated code"
    ),
    engine_change="use --accelerate kernels,graphs, or more sessions in a batch",
)
def late_launches(analysis: Analysis) -> Iterable[Evidence]:
    """Yield the idle time of a GPU that the CPU launches too slowly for."""
    limit = find_bottleneck(analysis)
    if limit and limit.kind == "launch":
        once_ms = float(slow_launches(analysis)[1].sum()) / 1e6  # has a rule of its own
        loading_ms = float(analysis.data_loading.lost_ns.sum()) / 1e6  # has one, too
        idle_ms = limit.idle_ms - once_ms - loading_ms
        tag = idle_tag(analysis, MOST_IDLE * limit.idle_ms)
        idle = sum(row.gpu_idle_ms for row in analysis.patterns if tag == row.name)
        yield Evidence(
            tag,
            f"leaves the GPU idle {limit.idle_share:.0%} of the time, and operations start "
            f"{(limit.delay_ms or 0.0) * 1e3:.0f} µs after their launch: the CPU cannot launch "
            "fast enough",
            idle_ms * 1e6 / analysis.duration_ns,
            idle_ms if tag == WHOLE_RUN else min(idle_ms, idle),
        )


@rule(
    name="sync-bound",
    fires_when=(
        "the CPU waits this share of the trace in synchronizing calls while the GPU idles, other "
        "CPU work left aside"
    ),
    threshold=SYNC_SHARE,
    unit="of the trace",
    change=(
        "find the .item(), .cpu() or print that reads a device value, and keep such counters on "
        "the host"
    ),
)
def device_waits(analysis: Analysis) -> Iterable[Evidence]:
    """Yield the time that the CPU waits for the GPU."""
    limit = find_bottleneck(analysis)
    if limit and limit.kind == "sync":
        gain = min(limit.sync_ms, limit.idle_ms - analysis.idle.host_ms)
        yield Evidence(
            limit.sync_call,
            f"makes the CPU wait the longest: all synchronizing calls take {limit.sync_ms:.0f} ms, "
            f"and the GPU idles {limit.idle_share:.0%} of the time",
            gain * 1e6 / analysis.duration_ns,
            gain,
        )


@rule(
    name="moving-data",
    fires_when="one copying operator takes this share of all operators' time",
    threshold=0.25,
    unit="of the operators",
    change=(
        "write into preallocated storage, keep one memory format throughout, or let "
        "torch.compile fuse it away"
    ),
    compiled_change="write into preallocated storage, or keep one memory format throughout",
)
def copying_operators(analysis: Analysis) -> Iterable[Evidence]:
    """Yield the operator that takes the most of those that only copy."""
    spent, whole = _operator_ns(analysis, _COPYING)
    if spent and whole:
        worst = min(spent, key=lambda name: (-spent[name], name))
        share = spent[worst] / whole
        yield Evidence(
            worst,
            f"takes {share:.0%} of all operators' time without computing anything",
            share,
            spent[worst] / 1e6,
        )


def _operator_ns(analysis: Analysis, wanted: Collection[str]) -> tuple[dict[str, float], float]:
    """Return the time of each of the wanted operators that ran, and of all operators together.

    Fewer than five calls of operators say nothing: then there are none.
    """
    table, names = analysis.operators, analysis.trace.names
    if int(table.calls.sum()) < LEAST_OPERATIONS:
        return {}, 0.0
    values = table.gpu if analysis.on_gpu else table.self_total
    whole = float((table.gpu_outermost if analysis.on_gpu else table.self_total).sum())
    spent = {
        names[i]: float(values[table.name == i].sum())
        for i in np.unique(table.name)
        if names[i] in wanted
    }
    return spent, whole


@rule(
    name="pageable-copies",
    fires_when="copies of unpinned memory take this share of the GPU's busy time",
    threshold=0.05,
    unit="of GPU busy time",
    change="pin the host buffer and copy with non_blocking=True",
)
def pageable_copies(analysis: Analysis) -> Iterable[Evidence]:
    """Yield the copies of memory that is not pinned."""
    copies = [row for row in kernel_rows(analysis) if "Pageable" in row.name]
    ms = sum(row.ms for row in copies)
    if analysis.gpu and copies and analysis.coverage.gpu_ops >= LEAST_OPERATIONS:
        yield Evidence(
            copies[0].name,
            f"copies memory that is not pinned; all such copies take {ms:.1f} ms",
            ms * 1e6 / max(analysis.gpu.busy_ns, 1),
            ms / 2,
        )


@rule(
    name="attention-backend",
    fires_when=(
        "softmax takes this share of the operators' time, which fused attention does not call"
    ),
    threshold=0.15,
    unit="of the operators",
    change=(
        "use another attention backend: scaled_dot_product_attention with flash, memory-efficient "
        "or cuDNN kernels"
    ),
)
def unfused_attention(analysis: Analysis) -> Iterable[Evidence]:
    """Yield the softmax that fused attention would not call."""
    spent, whole = _operator_ns(analysis, _SOFTMAX)
    if spent and whole:
        longest = max(spent.values())
        share = longest / whole
        yield Evidence(
            "aten::softmax",
            f"takes {share:.0%} of the operators' time: attention is not fused and writes its "
            "weights to memory",
            share,
            longest / 1e6,
        )


@rule(
    name="memory-full",
    fires_when="a device's memory is allocated to this share at the peak",
    threshold=0.90,
    unit="of the memory",
    change="use a smaller batch or a lower resolution; in training, gradient checkpointing",
    engine_change="use a smaller --num-output-frames or local_attn_size",
)
def full_memory(analysis: Analysis) -> Iterable[Evidence]:
    """Yield every device's peak of allocated memory."""
    devices = analysis.trace.metadata.get("deviceProperties")
    entries = [d for d in devices if isinstance(d, dict)] if isinstance(devices, list) else []
    sizes = {d["id"]: d.get("totalGlobalMem") for d in entries if isinstance(d.get("id"), int)}
    for device, peak in peak_bytes(analysis.trace).items():
        size = sizes.get(device)
        if device >= 0 and isinstance(size, int | float) and size > 0:
            yield Evidence(
                f"device {device}",
                f"holds {peak / 2**30:.1f} GiB of {size / 2**30:.1f} GiB at its peak",
                peak / size,
                None,
            )


@rule(
    name="far-from-roof",
    fires_when=(
        "a tag that takes over 15 % of the trace takes this many times as long as the roofline "
        "allows"
    ),
    threshold=8.0,
    unit="times the roofline",
    change=(
        "avoid small operators and copies between them: use torch.compile, another attention "
        "backend, or more work per call"
    ),
    compiled_change=(
        "avoid small operators and copies between them: use another attention backend, more work "
        "per call, or fewer graph breaks (TORCH_LOGS=graph_breaks)"
    ),
    engine_change="on a GPU use --accelerate kernels, else --vae-compile-mode force (decoder)",
)
def far_from_roofline(analysis: Analysis) -> Iterable[Evidence]:
    """Yield the large tags' distance from the roofline."""
    for point in roofline_by_tag(analysis):
        if point.roof_share and point.ms * 1e6 > LARGE_TAG * analysis.duration_ns:
            yield Evidence(
                point.tag,
                f"reaches {point.gflops:,.0f} of the {point.roof_gflops:,.0f} GFLOP/s that its "
                f"{point.bound} allows, and takes {point.ms:,.0f} ms",
                1 / point.roof_share,
                point.ms * (1 - point.roof_share),
            )
