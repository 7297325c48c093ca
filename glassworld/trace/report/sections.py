"""The sections of the report: what each is made of, and how it reads as a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from glassworld.profiling import registry as tags
from glassworld.trace.analyzers import blocks, breakdown, execution
from glassworld.trace.analyzers.critical_path import path_remarks, path_tags
from glassworld.trace.analyzers.expected_time import expected_table, reference_note
from glassworld.trace.analyzers.operator_roofline.by_shape import (
    ShapeGroup,
    roofline_by_shape,
    shape_remarks,
)
from glassworld.trace.analyzers.operators import (
    NEARLY_ALL,
    launched_by_operators,
    model_kernels,
    model_operators,
    model_tag,
)
from glassworld.trace.analyzers.roofline import roofline_by_tag
from glassworld.trace.analyzers.serving_steps import serving_remarks, serving_steps
from glassworld.trace.analyzers.torch_compile.fused_kernels import (
    CompiledRegion,
    FusedKernels,
    compiled_regions,
    fused_kernels,
    region_remarks,
)
from glassworld.trace.report.cells import Name, end_of, number, percent, start_of
from glassworld.trace.timeline.analysis import Analysis
from glassworld.trace.timeline.idle import IdleGap
from glassworld.trace.timeline.training_steps import PARTS, StepPart, TrainingStep


@dataclass(frozen=True)
class Section:
    """A section of the report; `missing` says why a trace may have none.

    `cells` turns one of `rows` into a line under `columns`; `remarks` are sentences below the
    table. `gpu_columns` are left out where nothing ran on a GPU. A report shows the first `most`
    rows; to show all of them, its `command` must be given the tag `under`. A section `of_engine`
    says nothing about traces of other programs, whose reports do not mention it; one `of_others`
    says nothing about the engine's, nor about one that has another kind of steps. An `optional`
    one is of what few traces record: no report mentions that it is missing. That of a record of
    memory alone mentions none.
    """

    command: str
    title: str
    missing: str
    rows: Callable[[Analysis], Sequence[Any]]
    columns: tuple[str, ...]
    cells: Callable[[Any], tuple[object, ...]]
    remarks: Callable[[Analysis], list[str]] = lambda analysis: []
    gpu_columns: tuple[str, ...] = ()
    most: int = 20
    under: Callable[[Analysis], str | None] = lambda analysis: None
    of_engine: bool = False
    of_others: bool = False
    optional: bool = False

    def mentioned(self, analysis: Analysis) -> bool:
        """Return whether the report of a trace without this section says that it has none."""
        if self.optional or execution.only_memory(analysis):
            return False
        if self.of_engine:
            return execution.is_engine_run(analysis)
        if self.of_others:
            others = (section for section in SECTIONS if section.of_others)
            return not (
                execution.is_engine_run(analysis) or any(part.rows(analysis) for part in others)
            )
        return True


def _part(part: breakdown.TagShare) -> tuple[object, ...]:
    return part.name, part.ms, percent(part.share), part.count or "", part.cpu_ms or ""


_PART = ("tag", "ms", "share", "count", "CPU ms")
_PART_GPU = ("CPU ms",)  # without one, "ms" is CPU time already


def _step_part(part: StepPart | TrainingStep) -> str:
    """Return CPU time, GPU busy and GPU idle time; CPU time alone where nothing was launched."""
    if not (part.cpu_ms or part.gpu_kernels):
        return ""
    gpu = (part.gpu_busy_ms, part.gpu_idle_ms) if part.gpu_kernels else ()
    return " / ".join(number(value) for value in (part.cpu_ms, *gpu))


def _stage_remarks(analysis: Analysis) -> list[str]:
    """Say of another program how much of its time the tags cover, and whether they overlap."""
    if execution.is_engine_run(analysis):
        return []
    summed = 0.0
    if analysis.gpu:
        what, whole = "GPU's busy time", analysis.gpu.busy_ns / 1e6
        tagged = sum(row.gpu_self_ms for row in analysis.patterns)
    else:
        what, whole = "window", analysis.duration_ns / 1e6
        tagged = analysis.tagged_ns / 1e6
        summed = sum(row.cpu_ms for row in analysis.patterns if len(row.path) == 1)
    remarks = []
    if tagged < NEARLY_ALL * whole:
        share = percent(tagged / whole)
        remarks.append(f"The tags cover {share} of the {what}; shares are of their time.")
    if NEARLY_ALL * summed > tagged:
        sums = f"in {number(tagged)} ms, their times add up to {number(summed)} ms"
        remarks.append(f"Tags ran at the same time: {sums}; shares are of the sum.")
    return remarks


def _block_remarks(analysis: Analysis) -> list[str]:
    outliers = [f"{block.block}" for block in blocks.block_times(analysis) if block.outlier]
    growth = blocks.block_drift(analysis)
    remarks = [f"Outliers: block {', '.join(outliers)}."] if outliers else []
    if growth is not None:
        drift = f"the steps of each block take {percent(growth)} longer than the previous block's"
        remarks.append(
            f"Drift: {drift if growth else 'none; the steps do not get steadily slower'}."
        )
    return remarks


def _step_remarks(analysis: Analysis) -> list[str]:
    return [first_step_sentence(step) for step in blocks.first_step_comparisons(analysis)]


def first_step_sentence(step: blocks.FirstStepComparison) -> str:
    """Say whether the first is slower, by how much, and why."""
    plural = step.what.endswith("s")
    head = f"{step.what[0].upper()}{step.what[1:]} {'take' if plural else 'takes'}"
    head += f" {number(step.ms)} ms, {step.times:.2f} times the others' {number(step.usual_ms)} ms"
    if not step.significant:
        return f"{head}: within their usual variation."
    reasons = ", ".join(f"{reason.tag} (+{number(reason.more_ms)} ms)" for reason in step.reasons)
    return f"{head}: mostly because of {reasons}." if reasons else f"{head}."


def blamed(gap: IdleGap) -> str:
    """Say what the CPU did in a gap, or why it is not to blame."""
    if gap.queued:
        return "(next operation already queued)"
    return gap.culprit or "(nothing recorded)"


def shapes_text(group: ShapeGroup) -> str:
    """Return the shapes of a group's inputs in a line."""
    return ", ".join("x".join(map(str, shape)) or "scalar" for shape in group.shapes)


def region_label(part: CompiledRegion | FusedKernels) -> str:
    """Return the name of a region with the start of its graph's hash; empty outside of any."""
    if part.region.startswith("##"):
        return f"CompiledFxGraph {part.graph[:8]}"
    name = part.region.replace("Torch-Compiled Region:", "Region")
    return f"{name} ({part.graph[:8]})" if part.graph else name


def region_tags(region: CompiledRegion, most: int | None = None) -> str:
    """Return the tags around a region; of a backward one, those around its forward pass.

    Of more than `most` characters the last are shown.
    """
    path = " > ".join(region.forward_path or region.path)
    shown = path if most is None else end_of(path, most)
    return f"gradient of {shown}" if region.forward_path else shown


def fused_place(kernels: FusedKernels) -> str:
    """Return where fused kernels ran: their region, else the tags around their launch."""
    return region_label(kernels) or " > ".join(kernels.path)


def _operator_remarks(analysis: Analysis) -> list[str]:
    shares = "A share counts only the calls that no other operator made."
    return [shares, *launched_by_operators(analysis, model_tag(analysis))]


def _reference_remarks(analysis: Analysis) -> list[str]:
    note = reference_note(analysis)
    return [note] if note else []


SECTIONS = (
    Section(
        "stages",
        "Stages",
        "no tags in this trace",
        breakdown.stage_shares,
        _PART,
        _part,
        _stage_remarks,
        gpu_columns=_PART_GPU,
    ),
    Section(
        "slowest",
        "Slowest modules, operators or kernels",
        "no modules, operators or kernels in this trace",
        execution.slow_parts,
        ("name", "kind", "count", "self ms", "share of\nself time"),
        lambda p: (start_of(p.name, 70), p.kind, p.count, p.self_ms, percent(p.share)),
        execution.covered_by_parts,
        most=12,
    ),
    Section(
        "blocks",
        "Blocks",
        f"no blocks ({tags.BLOCK}) in this trace",
        blocks.block_times,
        ("block", "ms", "steps", "encode", "update", "decode", "other", "outlier"),
        lambda b: (
            f"{b.block}",
            b.ms,
            b.steps_ms,
            b.encode_ms,
            b.update_ms,
            b.decode_ms,
            b.other_ms,
            "x" * b.outlier,
        ),
        _block_remarks,
        of_engine=True,
    ),
    Section(
        "steps",
        "Denoising steps",
        f"no denoising steps ({tags.DENOISING_STEP}) in this trace",
        blocks.step_times,
        ("step", "median ms", "min", "max", "first block", "count"),
        lambda s: (
            f"{s.step} (t{s.timestep})",
            s.median_ms,
            s.min_ms,
            s.max_ms,
            s.first_block_ms,
            s.count,
        ),
        _step_remarks,
        of_engine=True,
    ),
    Section(
        "training",
        "Training steps",
        "no steps (ProfilerStep#N), optimizers or backward passes in this trace",
        lambda analysis: analysis.training_steps,
        ("step, ms: CPU, or\nCPU / GPU busy / GPU idle", "all", *PARTS),
        lambda s: (s.name, *map(_step_part, (s, s.forward, s.backward, s.optimizer))),
        breakdown.training_remarks,
        of_others=True,
    ),
    Section(
        "serving",
        "Steps of a serving engine",
        "no steps of vLLM (execute_..._context_...) or SGLang (step[...]) in this trace",
        serving_steps,
        ("step", "kind", "ms", "CPU ms", "GPU\nidle", "kernels", "outlier"),
        lambda s: (
            start_of(s.name, 70),
            s.kind,
            s.ms,
            s.cpu_ms,
            s.gpu_idle_ms,
            s.gpu_kernels,
            "x" * s.outlier,
        ),
        serving_remarks,
        gpu_columns=("CPU ms", "GPU\nidle", "kernels"),
        of_others=True,
    ),
    Section(
        "model",
        "Diffusion model",
        f"no {tags.DIFFUSION_FORWARD} with parts in this trace",
        breakdown.transformer_shares,
        _PART,
        _part,
        gpu_columns=_PART_GPU,
        of_engine=True,
    ),
    Section(
        "ops",
        "Operators",
        "no operators in this trace",
        model_operators,
        ("operator", "calls", "CPU ms", "self CPU ms", "GPU ms", "share of\noperators"),
        lambda r: (r.name, r.calls, r.cpu_ms, r.self_cpu_ms, r.gpu_ms, percent(r.share)),
        _operator_remarks,
        gpu_columns=("GPU ms",),
        most=12,
        under=model_tag,
    ),
    Section(
        "kernels",
        "GPU kernels",
        "no GPU operations in this trace",
        model_kernels,
        ("kernel", "calls", "GPU ms", "share of\nkernels"),
        lambda k: (start_of(k.name, 90), k.calls, k.ms, percent(k.share)),
        most=12,
        under=model_tag,
    ),
    Section(
        "compiled",
        "Compiled regions",
        "no compiled regions (torch.compile) in this trace",
        compiled_regions,
        ("region", "in tag", "runs", "CPU ms", "GPU ms", "fused ms", "share"),
        lambda r: (
            region_label(r),
            Name(region_tags(r, 50)),
            r.runs,
            r.cpu_ms,
            r.gpu_ms,
            r.fused_ms,
            percent(r.share),
        ),
        region_remarks,
        gpu_columns=("GPU ms",),
        most=12,
        optional=True,
    ),
    Section(
        "fused",
        "Fused kernels",
        "no kernels of Inductor (triton_..._fused_..., cpp_fused_...) in this trace",
        fused_kernels,
        ("fused operators", "kind", "in region or tag", "calls", "ms", "share"),
        lambda k: (
            start_of(", ".join(k.operators) or "(not named)", 90),
            k.kind,
            Name(end_of(fused_place(k), 50)),
            k.calls,
            k.ms,
            percent(k.share),
        ),
        most=12,
        optional=True,
    ),
    Section(
        "decoder",
        "VAE decoder",
        f"no {tags.VAE_DECODE} with parts in this trace",
        breakdown.decoder_shares,
        _PART,
        _part,
        gpu_columns=_PART_GPU,
        of_engine=True,
    ),
    Section(
        "update",
        "KV-cache update",
        f"no {tags.UPDATE_CACHE} in this trace",
        breakdown.update_cost,
        ("ms", "count", "share of\ntransformer", "share of\ninference loop"),
        lambda c: (
            number(c.ms),
            c.count,
            percent(c.share_of_transformer),
            percent(c.share_of_run),
        ),
        of_engine=True,
    ),
    Section(
        "expected",
        "Measured and expected time",
        "no stages of the engine in this trace",
        expected_table,
        (
            "",
            "ms",
            "share",
            "expected\nms",
            "expected\nshare",
            "share of\npeak rate",
            "reference\n50 steps",
        ),
        lambda e: (
            e.row,
            e.measured_ms,
            percent(e.share),
            e.expected_ms,
            percent(e.expected_share),
            percent(e.roof_share),
            e.guide,
        ),
        _reference_remarks,
        of_engine=True,
    ),
    Section(
        "roofline",
        "Roofline",
        "no configuration of the engine in this trace, or no tag whose work is counted",
        roofline_by_tag,
        ("tag", "ms", "GFLOP/s", "FLOPs\n/byte", "attainable\nGFLOP/s", "reached", "bound by"),
        lambda p: (
            p.tag,
            p.ms,
            p.gflops,
            p.intensity,
            p.roof_gflops,
            percent(p.roof_share),
            p.bound or "-",
        ),
        of_engine=True,
    ),
    Section(
        "roofline --by-shape",
        "Roofline by operator and shape",
        "no operator with a FLOP formula in this trace, or no shapes; torch.profiler records them "
        "with record_shapes=True",
        lambda analysis: roofline_by_shape(analysis).groups,
        # What fits a terminal beside the shapes: the page has more, the JSON all.
        ("operator and shapes", "calls", "ms", "GFLOP/s", "GB/s", "reached", "bound by"),
        lambda g: (
            f"{g.operator} {shapes_text(g)} {g.dtype}",
            *(g.calls, g.ms, g.gflops, g.gbps, percent(g.roof_share), g.bound or "-"),
        ),
        shape_remarks,
        most=12,
        optional=True,
    ),
    Section(
        "critical-path",
        "Critical path",
        "no work in this trace, or too much for the report: see `glassworld trace critical-path`",
        path_tags,
        ("on the path", "ms", "share", "CPU ms", "GPU ms", "run if it\ntook half", "gain"),
        lambda t: (
            start_of(t.tag, 70),
            t.ms,
            percent(t.share),
            t.cpu_ms,
            t.gpu_ms,
            t.half_run_ms,
            t.half_gain_ms,
        ),
        path_remarks,
        gpu_columns=("CPU ms", "GPU ms"),
        most=12,
    ),
    Section(
        "gaps",
        "GPU idle time",
        "no GPU operations in this trace, or no idle gap of notable length",
        lambda analysis: analysis.gaps,
        ("CPU meanwhile", "idle ms", "start ms", "tag", "next GPU operation"),
        lambda g: (
            end_of(blamed(g), 70),
            g.ms,
            g.start_ms,
            g.tag and Name(start_of(g.tag, 40)),
            Name(start_of(g.next_op, 40)),
        ),
        most=8,
    ),
    Section(
        "memory",
        "Memory",
        "no allocations in this trace; torch.profiler records them with profile_memory=True",
        lambda analysis: analysis.memory,
        ("tag", "on", "peak MiB", "kept MiB"),
        lambda m: (m.tag, "CPU" if m.device < 0 else f"GPU {m.device}", m.peak_mib, m.kept_mib),
        gpu_columns=("on",),
        most=8,
    ),
)


SLOWEST = Section(
    "top",
    "Slowest tags by self time",
    "no tags in this trace; see `glassworld trace ops`",
    breakdown.slowest_tags,
    ("tag", "count", "CPU\nms", "self\nCPU", "GPU\nbusy", "self\nGPU", "GPU\nidle", "kernels"),
    lambda r: (
        f"{r.name} in {r.within}" if r.within else r.name,
        r.instances,
        r.cpu_ms,
        r.self_cpu_ms,
        r.gpu_busy_ms,
        r.gpu_self_ms,
        r.gpu_idle_ms,
        r.gpu_kernels,
    ),
    gpu_columns=("GPU\nbusy", "self\nGPU", "GPU\nidle", "kernels"),
)
"""What `top` shows: no section of the report, but printed like one."""


def section(command: str) -> Section:
    """Return the section that a command prints."""
    return next(section for section in SECTIONS if section.command == command)
