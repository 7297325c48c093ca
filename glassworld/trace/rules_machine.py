"""Rules about how the machine is used: launches, waits, copies, attention, memory."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from glassworld.trace.analysis import Analysis
from glassworld.trace.findings import Finding, scale_ms
from glassworld.trace.gaps import idle_gaps
from glassworld.trace.memory import peaks
from glassworld.trace.tables import Ints

IDLE_SHARE = 0.20
PROMPT_MS = 0.05
SYNC_SHARE = 0.20
GPU_STALL_SHARE = 0.20
MOVING_SHARE = 0.15
PAGEABLE_SHARE = 0.05
ATTENTION_SHARE = 0.5
MEMORY_SHARE = 0.9
_MOVERS = {
    "aten::cat",
    "aten::copy_",
    "aten::clone",
    "aten::contiguous",
    "aten::constant_pad_nd",
    "aten::_to_copy",
}


def gpu_stall(analysis: Analysis) -> Iterable[Finding]:
    """One long stretch without any GPU work."""
    scale = scale_ms(analysis)
    for gap in idle_gaps(analysis, 3):
        if gap.ms > GPU_STALL_SHARE * scale and gap.ms > 1:
            yield Finding(
                "gpu-stall",
                gap.tag or "(no tag)",
                f"the GPU idled {gap.ms:.1f} ms before {gap.next_op[:60]}; the CPU was in "
                f"{gap.culprit or 'nothing recorded'}",
                gap.ms,
                GPU_STALL_SHARE * scale,
                "ms",
                "move this work off the launching thread, or do it before the run",
                gap.ms,
            )


def launch_bound(analysis: Analysis) -> Iterable[Finding]:
    """The GPU waits for launches: small kernels, or a slow Python."""
    if not analysis.on_gpu:
        return
    for tag in _roots(analysis):
        row = analysis.patterns[tag]
        idle = row.gpu_idle_ms / row.gpu_span_ms if row.gpu_span_ms else 0.0
        delay = float(np.median(analysis.ops.delay[analysis.ops.launch >= 0])) / 1e6
        if idle > IDLE_SHARE and delay < PROMPT_MS:
            yield Finding(
                "launch-bound",
                row.name,
                f"the GPU idles {idle:.0%} of the time and kernels start {delay * 1e3:.0f} us "
                "after their launch: the CPU cannot launch fast enough",
                idle,
                IDLE_SHARE,
                "share",
                "torch.compile or graph capture (vae_compile_mode for the decoder), or more "
                "work per launch: more sessions in a batch",
                row.gpu_idle_ms,
            )


def _roots(analysis: Analysis) -> Ints:
    """The pattern groups that are not inside another."""
    return np.flatnonzero(analysis.tree.by_pattern.parent < 0)


def sync_bound(analysis: Analysis) -> Iterable[Finding]:
    """The CPU sits in synchronisation while the GPU is often idle."""
    if not analysis.on_gpu or not analysis.window_ns:
        return
    calls = analysis.trace.launches
    names = analysis.trace.names
    waits = [i for i in np.unique(calls["name"]) if _waits(names[i])]
    ms = float(calls["dur"][np.isin(calls["name"], waits)].sum() / 1e6)
    share = ms * 1e6 / analysis.window_ns
    busy = float(analysis.ops.exclusive.sum())
    idle = 1 - busy / analysis.window_ns
    if share > SYNC_SHARE and idle > IDLE_SHARE:
        worst = max(waits, key=lambda i: int(calls["dur"][calls["name"] == i].sum()))
        yield Finding(
            "sync-bound",
            names[worst],
            f"the CPU waits {ms:.0f} ms ({share:.0%}) in synchronising calls while the GPU idles "
            f"{idle:.0%}",
            share,
            SYNC_SHARE,
            "share",
            "find the .item(), .cpu() or print that reads a device value, and keep such counters "
            "on the host",
            min(ms, idle * analysis.window_ns / 1e6),
        )


def _waits(name: str) -> bool:
    return "Synchronize" in name or name in ("cudaMemcpy", "hipMemcpy", "hipMemcpyWithStream")


def moving_data(analysis: Analysis) -> Iterable[Finding]:
    """Copies and concatenations cost more than arithmetic should leave them."""
    table, names = analysis.operators, analysis.trace.names
    values = table.gpu if analysis.on_gpu else table.own
    whole = float((table.gpu_outermost if analysis.on_gpu else table.own).sum())
    movers = [i for i in np.unique(table.name) if names[i] in _MOVERS]
    spent = {names[i]: float(values[table.name == i].sum()) for i in movers}
    if not spent or not whole:
        return
    worst = max(spent, key=spent.__getitem__)
    share = spent[worst] / whole
    if share > MOVING_SHARE:
        yield Finding(
            "moving-data",
            worst,
            f"takes {share:.0%} of all operators' time without computing anything",
            share,
            MOVING_SHARE,
            "share",
            "write into preallocated storage, keep one memory format throughout, or let "
            "torch.compile fuse it away",
            spent[worst] / 1e6,
        )


def pageable_copies(analysis: Analysis) -> Iterable[Finding]:
    """Copies from or to memory that is not pinned."""
    names, rows = analysis.trace.names, analysis.ops.rows
    pageable = [i for i in np.unique(rows["name"]) if "Pageable" in names[i]]
    ms = float(rows["dur"][np.isin(rows["name"], pageable)].sum() / 1e6)
    busy = float(analysis.ops.exclusive.sum() / 1e6)
    if busy and ms / busy > PAGEABLE_SHARE:
        yield Finding(
            "pageable-copies",
            names[pageable[0]],
            f"copies between the GPU and memory that is not pinned take {ms:.1f} ms",
            ms / busy,
            PAGEABLE_SHARE,
            "share",
            "pin the host buffer and copy with non_blocking=True",
            ms / 2,
        )


def attention_backend(analysis: Analysis) -> Iterable[Finding]:
    """Attention dominates and none of its kernels is a fused one."""
    table, names = analysis.operators, analysis.trace.names
    if not analysis.on_gpu:
        return
    attention = [
        i for i in np.unique(table.name) if names[i] == "aten::scaled_dot_product_attention"
    ]
    fused = any("flash" in names[i] or "efficient" in names[i] or "cudnn" in names[i]
                for i in np.unique(table.name))  # fmt: skip
    ms = float(table.gpu[np.isin(table.name, attention)].sum() / 1e6)
    busy = float(analysis.ops.exclusive.sum() / 1e6)
    if busy and ms / busy > ATTENTION_SHARE and not fused:
        yield Finding(
            "attention-backend",
            "aten::scaled_dot_product_attention",
            f"takes {ms / busy:.0%} of the GPU's time and runs unfused",
            ms / busy,
            ATTENTION_SHARE,
            "share",
            "another attention backend: flash, memory-efficient or cuDNN",
            ms / 2,
        )


def memory_full(analysis: Analysis) -> Iterable[Finding]:
    """The device's memory is nearly full."""
    devices = analysis.trace.metadata.get("deviceProperties")
    if not isinstance(devices, list):
        return
    sizes = {d.get("id"): d.get("totalGlobalMem", 0) for d in devices if isinstance(d, dict)}
    for device, peak in peaks(analysis.trace).items():
        size = sizes.get(device) or 0
        if device >= 0 and size and peak > MEMORY_SHARE * size:
            yield Finding(
                "memory-full",
                f"device {device}",
                f"holds {peak / 2**30:.1f} GiB of {size / 2**30:.1f} at its peak",
                peak / size,
                MEMORY_SHARE,
                "share",
                "lower resolution, fewer num_output_frames, a smaller local_attn_size; in "
                "training, gradient checkpointing",
                0.0,
            )
