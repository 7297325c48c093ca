"""What to do about it: rules that fire only on evidence, each with a number and a gain."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from glassworld.profiling import registry as tags
from glassworld.trace import questions
from glassworld.trace.analysis import Analysis
from glassworld.trace.gaps import idle_gaps
from glassworld.trace.memory import peaks
from glassworld.trace.tables import Floats, Ints


@dataclass(frozen=True)
class Finding:
    """Something to change. `value` beyond `threshold` is the evidence; `gain_ms` the promise.

    `tag` names the tag (or operation) at fault, `change` says what to do.
    """

    rule: str
    tag: str
    what: str
    value: float
    threshold: float
    unit: str
    change: str
    gain_ms: float


IDLE_SHARE = 0.20
PROMPT_MS = 0.05
SYNC_SHARE = 0.20
STALL_SHARE = 0.20
STALL_TIMES = 3.0
MATTERS = 0.02  # a finding must promise this share of the window
SLOW_STEP = 1.3
SLOW_LAYER = 1.5
DRIFT = 0.02
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


def stall(analysis: Analysis) -> Iterable[Finding]:
    """A tag instance with far more time of its own than its kind: something waited there."""
    tree = analysis.tree
    scale = _scale_ms(analysis)
    for pattern in range(len(tree.patterns)):
        found = np.flatnonzero(tree.pattern == pattern)
        found = found[tree.dims["block"][found] != 0]  # the first block warms up
        own = tree.self_ns[found] / 1e6
        for i in np.flatnonzero(questions.outliers(own)):
            excess = float(own[i] - np.median(own))
            if excess > STALL_SHARE * scale and own[i] > STALL_TIMES * np.median(own):
                yield Finding(
                    "stall",
                    analysis.instance_name(int(found[i])),
                    f"spent {own[i]:.1f} ms outside its own parts where its kind takes "
                    f"{np.median(own):.1f}: one stall, not a slow network",
                    excess,
                    STALL_SHARE * scale,
                    "ms",
                    "look for a wait at this moment: I/O, a lock, garbage collection, another "
                    "process on the machine",
                    excess,
                )


def pause(analysis: Analysis) -> Iterable[Finding]:
    """A long pause between two tags of the same kind, in a tag that runs too rarely to compare."""
    tree = analysis.tree
    scale = _scale_ms(analysis)
    for pattern in range(len(tree.patterns)):
        found = tree.where(tree.patterns[pattern])
        inside = found[tree.forest.parent[found] >= 0]
        around = tree.forest.parent[inside]
        rare = np.bincount(tree.pattern, minlength=len(tree.patterns))[tree.pattern[around]] < 4
        next_to = np.flatnonzero(rare[1:] & (around[1:] == around[:-1])) + 1
        gaps = (tree.rows["start"][inside[next_to]] - tree.forest.end[inside[next_to - 1]]) / 1e6
        for i in np.flatnonzero(questions.outliers(gaps)):
            if gaps[i] > STALL_SHARE * scale:
                yield Finding(
                    "stall",
                    analysis.instance_name(int(inside[next_to[i]])),
                    f"began {gaps[i]:.1f} ms after the one before it ended, where its kind waits "
                    f"{np.median(gaps):.1f}",
                    float(gaps[i]),
                    STALL_SHARE * scale,
                    "ms",
                    "look at what runs between the two: a callback, writing files, a lock",
                    float(gaps[i]),
                )


def gpu_stall(analysis: Analysis) -> Iterable[Finding]:
    """One long stretch without any GPU work."""
    scale = _scale_ms(analysis)
    for gap in idle_gaps(analysis, 3):
        if gap.ms > STALL_SHARE * scale and gap.ms > 1:
            yield Finding(
                "gpu-stall",
                gap.tag or "(no tag)",
                f"the GPU idled {gap.ms:.1f} ms before {gap.next_op[:60]}; the CPU was in "
                f"{gap.culprit or 'nothing recorded'}",
                gap.ms,
                STALL_SHARE * scale,
                "ms",
                "move this work off the launching thread, or do it before the run",
                gap.ms,
            )


def slow_step(analysis: Analysis) -> Iterable[Finding]:
    """A denoising step slower than the others, though all do the same work."""
    steps = questions.steps(analysis)
    if len(steps) < 3 or min(step.count for step in steps) < 3:
        return
    for step in steps:
        # The fastest instance: other load on the machine only ever adds time.
        others = float(np.median([s.min_ms for s in steps if s is not step]))
        ratio = step.min_ms / others if others else 0.0
        gain = (step.min_ms - others) * step.count
        if ratio > SLOW_STEP and gain > MATTERS * analysis.window_ns / 1e6:
            yield Finding(
                "slow-step",
                f"Denoising_Step_{step.step}_t{step.timestep}",
                f"takes {step.min_ms:.1f} ms at best where the other steps take {others:.1f}",
                ratio,
                SLOW_STEP,
                "x",
                "all steps run the same network: compare the operators of this step with "
                "another's (`glassworld trace ops`)",
                gain,
            )


def slow_layer(analysis: Analysis) -> Iterable[Finding]:
    """A transformer layer slower than the same parts are in other layers."""
    tree = analysis.tree
    found = tree.where(tags.LAYER)
    layers, row = np.unique(tree.dims["layer"][found], return_inverse=True)
    if len(layers) < 3:
        return
    best = _fastest_parts(analysis, found, row, len(layers))
    count = len(found) / len(layers)
    for i, layer in enumerate(layers):
        others = np.delete(best, i, axis=0)
        known = np.isfinite(best[i]) & np.isfinite(others).any(axis=0)
        with_part = np.where(np.isfinite(others), others, np.nan)[:, known]
        usual = float(np.nanmedian(with_part, axis=0).sum()) if known.any() else 0.0
        mine = float(best[i, known].sum())
        gain = (mine - usual) * count
        if usual and mine > SLOW_LAYER * usual and gain > MATTERS * analysis.window_ns / 1e6:
            yield Finding(
                "slow-layer",
                tags.LAYER.format(layer=layer),
                f"takes {mine:.2f} ms at best where the same parts take {usual:.2f} in others",
                mine / usual,
                SLOW_LAYER,
                "x",
                "this layer alone is slow: look for a hook, a recompilation or a fallback in it",
                gain,
            )


def _fastest_parts(analysis: Analysis, found: Ints, row: Ints, layers: int) -> Floats:
    """Per layer (rows) and kind of part (columns), the fastest instance in ms; inf if none.

    The last column is the time outside any part. The fastest, because other load on the machine
    only ever adds time.
    """
    tree = analysis.tree
    best = np.full((layers, len(tree.patterns) + 1), np.inf)
    row_of = np.full(len(tree) + 1, -1)
    row_of[found] = row
    children = np.flatnonzero(row_of[tree.forest.parent] >= 0)
    where = (row_of[tree.forest.parent[children]], tree.pattern[children])
    np.minimum.at(best, where, analysis.time_ns(children) / 1e6)
    own = np.zeros(len(found)) if analysis.on_gpu else tree.self_ns[found] / 1e6
    np.minimum.at(best, (row, np.full(len(row), len(tree.patterns))), own)
    return best


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


def drifts(analysis: Analysis) -> Iterable[Finding]:
    """Blocks grow slower and slower."""
    slope = questions.drift(analysis)
    found = questions.blocks(analysis)
    if slope is not None and slope > DRIFT and len(found) >= 6:
        per_block = slope * float(np.median([block.steps_ms for block in found]))
        yield Finding(
            "drift",
            tags.BLOCK,
            f"each block's steps take {slope:.1%} longer than the block's before",
            slope,
            DRIFT,
            "share",
            "a smaller local_attn_size bounds what attention sees",
            per_block * len(found) * (len(found) - 1) / 2,
        )


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


RULES: tuple[Callable[[Analysis], Iterable[Finding]], ...] = (
    stall,
    pause,
    gpu_stall,
    slow_step,
    slow_layer,
    launch_bound,
    sync_bound,
    drifts,
    moving_data,
    pageable_copies,
    attention_backend,
    memory_full,
)


def advise(analysis: Analysis) -> list[Finding]:
    """Every finding the trace supports, the largest gain first; often none."""
    found = [finding for rule in RULES for finding in rule(analysis)]
    return sorted(found, key=lambda finding: -finding.gain_ms)


def _scale_ms(analysis: Analysis) -> float:
    """What a stall is measured against: a block, or the whole window without blocks."""
    blocks: Floats = np.asarray(analysis.tree.rows["dur"][analysis.tree.where(tags.BLOCK)] / 1e6)
    return float(np.median(blocks)) if len(blocks) else analysis.window_ns / 1e6


def _roots(analysis: Analysis) -> Ints:
    """The pattern groups that are not inside another."""
    return np.flatnonzero(analysis.tree.by_pattern.parent < 0)
