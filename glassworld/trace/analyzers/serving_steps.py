"""Time the steps of serving engines, vLLM's and SGLang's: each step runs a batch of requests."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from glassworld.trace.timeline.analysis import Analysis
from glassworld.trace.timeline.stats import outlier_mask

_VLLM = re.compile(r"execute_(?:\d+_)?context_(\d+)\(.*\)_generation_(\d+)\(")
_SGLANG = re.compile(r"step\[(\w+)")
_KIND_OF_MODE = {"EXTEND": "prefill", "PREFILL": "prefill", "DECODE": "decode", "MIXED": "mixed"}


@dataclass(frozen=True)
class ServingStep:
    """A step of a serving engine; milliseconds.

    `kind` is prefill, decode or mixed, or the engine's own word. `ms` is the time that counts: GPU
    busy where there is a GPU, else CPU. `gpu_idle_ms` lies between the step's first operation and
    its last one. `outlier` is set if it took far longer than others of its kind.
    """

    name: str
    kind: str
    start_ms: float
    ms: float
    cpu_ms: float
    gpu_idle_ms: float
    gpu_kernels: int
    outlier: bool


def step_kind(name: str) -> str:
    """Return what a step does, by the name of its tag; empty for a tag that is no step."""
    if vllm := _VLLM.match(name):
        prefilling, decoding = (int(count) > 0 for count in vllm.groups())
        return "mixed" if prefilling and decoding else "prefill" if prefilling else "decode"
    sglang = _SGLANG.match(name)
    return _KIND_OF_MODE.get(sglang[1], sglang[1].lower()) if sglang else ""


def serving_steps(analysis: Analysis) -> list[ServingStep]:
    """Return the steps in order of time; none in a trace of another program.

    A step inside another one, as where SGLang opens both kinds of tag, is a part of that.
    """
    tree, device = analysis.tree, analysis.device
    kinds = {int(name): step_kind(tree.names[name]) for name in np.unique(tree.rows["name"])}
    kind_of = np.array([kinds[name] for name in tree.rows["name"].tolist()], dtype=object)
    is_step = np.append(kind_of.astype(bool), False)  # the parent of a root is no step
    above = tree.forest.parent.copy()
    while (climbs := (above >= 0) & ~is_step[above]).any():
        above[climbs] = tree.forest.parent[above[climbs]]
    steps = np.flatnonzero(is_step[:-1] & (above < 0))
    steps = steps[np.argsort(tree.rows["start"][steps], kind="stable")]
    ms = analysis.time_ns(steps) / 1e6
    outlier = np.zeros(len(steps), dtype=bool)
    for kind in set(kind_of[steps].tolist()):
        alike = np.flatnonzero(kind_of[steps] == kind)
        outlier[alike] = outlier_mask(ms[alike])
    return [
        ServingStep(
            name=tree.instance_name(int(step)),
            kind=str(kind_of[step]),
            start_ms=(int(tree.rows["start"][step]) - analysis.origin_ns) / 1e6,
            ms=float(ms[i]),
            cpu_ms=int(tree.cpu_ns[step]) / 1e6,
            gpu_idle_ms=int(device.span[step] - device.busy[step]) / 1e6,
            gpu_kernels=int(device.kernels[step]),
            outlier=bool(outlier[i]),
        )
        for i, step in enumerate(steps.tolist())
    ]


def serving_remarks(analysis: Analysis) -> list[str]:
    """Sum up the steps of each kind."""
    steps = serving_steps(analysis)
    remarks = []
    for kind in sorted({step.kind for step in steps}):
        ms = [step.ms for step in steps if step.kind == kind]
        steps_of_kind = f"{len(ms):,} step{'s' * (len(ms) != 1)}"
        remarks.append(
            f"{kind}: {steps_of_kind}, {sum(ms):,.2f} ms in total, median {np.median(ms):,.2f} ms."
        )
    return remarks
