"""What a reader of the figures must know: what the trace lacks, hides or distorts."""

from __future__ import annotations

import re

import numpy as np

from glassworld.profiling import registry as tags
from glassworld.trace.analyzers.peak_rates import (
    read_ceilings,
    run_config,
    run_machine,
    stored_ceilings,
)
from glassworld.trace.timeline.analysis import Analysis

OVERHEAD_SHARE = 0.05
HIDDEN_SHARE = 0.05
_COMPILED = re.compile(r"Torch-Compiled Region|CompiledFxGraph|CompiledFunction")


def notes(analysis: Analysis) -> list[str]:
    """One sentence per caveat; empty where there is none."""
    return [
        *analysis.trace.losses,
        *_large(analysis),
        *_tags(analysis),
        *_gpu(analysis),
        *_compiled(analysis),
        *_machine(analysis),
    ]


def _large(analysis: Analysis) -> list[str]:
    if not analysis.dropped_instances:
        return []
    whole = len(analysis.tree) + analysis.dropped_instances
    made = [
        f"sums are of all {whole:,} tags; blocks, steps and single instances are those of the "
        f"stretches that stand out, {len(analysis.tree):,} tags"
    ]
    if analysis.dropped_path_instances:
        made.append(
            "too many paths of names to sum up each: "
            f"{analysis.dropped_path_instances:,} instances are in the sums by pattern only"
        )
    return made


def _tags(analysis: Analysis) -> list[str]:
    if not len(analysis.tree):
        return ["no tags (user annotations) in this trace: only operators and kernels are shown"]
    clipped = analysis.tree.forest.clipped
    if clipped:
        return [f"{clipped} tags outlast the tag they began in and are clipped to it in the tree"]
    return []


def _gpu(analysis: Analysis) -> list[str]:
    if not analysis.on_gpu:
        return ["no GPU operations in this trace: every time is CPU time"]
    made, coverage = [], analysis.coverage
    lost = coverage.gpu_ops - coverage.launched
    if lost:
        made.append(f"{lost} of {coverage.gpu_ops} GPU operations have no launch in the trace")
    untagged = coverage.launched - coverage.attributed
    if untagged and len(analysis.tree):
        made.append(f"{untagged} of {coverage.gpu_ops} GPU operations lie outside every tag")
    hidden = analysis.idle.queued_ms
    if hidden > HIDDEN_SHARE * analysis.window_ns / 1e6:
        made.append(
            f"for {hidden:,.0f} ms the GPU shows no operation though some had been launched: it "
            "worked on what was launched before the trace began, or its queue was held up"
        )
    if any("graphlaunch" in name.lower() for name in analysis.calls):
        made.append("GPU graphs are replayed: tags inside a captured graph cannot be seen")
    return made


def _compiled(analysis: Analysis) -> list[str]:
    seen = set(analysis.tree.patterns)
    expected = {
        tags.DIFFUSION_FORWARD: tags.LAYER,
        tags.LAYER: tags.SELF_ATTENTION,
        tags.DECODE_FRAME: tags.DEC_UPSAMPLE,
    }
    made = [
        f"{outer} has no {inner} inside: compilation or a graph has taken these tags away"
        for outer, inner in expected.items()
        if outer in seen and inner not in seen
    ]
    operators = analysis.operators.name
    compiled = any(_COMPILED.search(analysis.trace.names[name]) for name in np.unique(operators))
    if compiled and len(analysis.tree):
        made.append("compiled regions run here: tags inside them have vanished")
    return made


def _machine(analysis: Analysis) -> list[str]:
    made = []
    share = analysis.trace.overhead_ns / analysis.window_ns if analysis.window_ns else 0.0
    if share > OVERHEAD_SHARE:
        made.append(f"the profiler itself took {share:.0%} of the window and inflated the run")
    metadata = analysis.trace.metadata
    config = run_config(metadata)
    if config and read_ceilings(metadata) is None:
        others = stored_ceilings(config)
        lacking = (
            f"the run was on {run_machine(metadata, config)}, the ceilings stored here were "
            f"measured on {others.machine}"
            if others
            else "no ceilings are stored for this device and precision"
        )
        made.append(
            f"{lacking}, so expected times are shares of the FLOPs only: where the run was, "
            "measure them with `glassworld bench ceilings`"
        )
    return made
