"""The nine questions: what answers each, and how the answer reads as a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from glassworld.profiling import registry as tags
from glassworld.trace.analyzers import blocks
from glassworld.trace.analyzers import breakdown as questions
from glassworld.trace.analyzers.expected_time import expected_table, reference_note
from glassworld.trace.analyzers.operators import (
    launched_by_operators,
    model_kernels,
    model_operators,
    model_tag,
)
from glassworld.trace.analyzers.roofline import roofline
from glassworld.trace.report.terminal import number, percent
from glassworld.trace.report.wrapping import Name
from glassworld.trace.timeline.analysis import Analysis
from glassworld.trace.timeline.idle import IdleGap


@dataclass(frozen=True)
class Section:
    """A question of the report; `missing` says why a trace may have no answer.

    `rows` are the answer, `cells` turns one of them into a line under `columns`, `remarks` are
    sentences beside it. `gpu_columns` are left out where nothing ran on a GPU. A report shows the
    first `most` rows; `under` is the tag that its command must be given to show all of them.
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


def _part(part: questions.Part) -> tuple[object, ...]:
    return part.name, part.ms, percent(part.share), part.count or "", part.cpu_ms or ""


_PART = ("tag", "ms", "share", "count", "CPU ms")
_PART_GPU = ("CPU ms",)  # without one, "ms" is CPU time already


def _block_remarks(analysis: Analysis) -> list[str]:
    found = blocks.blocks(analysis)
    late = [f"{block.block}" for block in found if block.outlier]
    growth = blocks.drift(analysis)
    remarks = [f"Outliers: block {', '.join(late)}."] if late else []
    if growth is not None:
        steady = f"each block's steps take {percent(growth)} longer than the block's before"
        remarks.append(f"Drift: {steady if growth else 'none, the steps do not grow steadily'}.")
    return remarks


def _step_remarks(analysis: Analysis) -> list[str]:
    return [first_step_sentence(step) for step in blocks.first_steps(analysis)]


def first_step_sentence(step: blocks.FirstStep) -> str:
    """Whether the first is slower, by how much, and why."""
    plural = step.what.endswith("s")
    head = f"{step.what[0].upper()}{step.what[1:]} {'take' if plural else 'takes'}"
    head += f" {number(step.ms)} ms, {step.times:.2f} times the others' {number(step.usual_ms)}"
    if not step.significant:
        return f"{head}: within their spread."
    reasons = ", ".join(f"{reason.tag} (+{number(reason.more_ms)} ms)" for reason in step.reasons)
    return f"{head}: most of it in {reasons}." if reasons else f"{head}."


def blamed(gap: IdleGap) -> str:
    """What the CPU did in a gap, or why it is not to blame."""
    if gap.queued:
        return "(launched long before: waits on the GPU)"
    return gap.culprit or "(nothing recorded)"


def _start_of(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _end_of(text: str, most: int) -> str:
    return text if len(text) <= most else f"...{text[3 - most :]}"


def _guide(analysis: Analysis) -> list[str]:
    note = reference_note(analysis)
    return [note] if note else []


QUESTIONS = (
    Section(
        "stages",
        "1. Which stage is the slowest?",
        "no tags in this trace",
        questions.stages,
        _PART,
        _part,
        gpu_columns=_PART_GPU,
    ),
    Section(
        "blocks",
        "2. How long does each block take, and of what?",
        f"no blocks ({tags.BLOCK}) in this trace",
        blocks.blocks,
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
    ),
    Section(
        "steps",
        "3. How do the denoising steps compare?",
        f"no denoising steps ({tags.DENOISING_STEP}) in this trace",
        blocks.steps,
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
    ),
    Section(
        "model",
        "4. What is the diffusion model made of?",
        f"no {tags.DIFFUSION_FORWARD} with parts in this trace",
        questions.transformer,
        _PART,
        _part,
        gpu_columns=_PART_GPU,
    ),
    Section(
        "ops",
        "4. Which operators does it call?",
        "no operators in this trace",
        model_operators,
        ("operator", "calls", "CPU ms", "own CPU ms", "GPU ms", "share"),
        lambda r: (r.name, r.calls, r.cpu_ms, r.self_cpu_ms, r.gpu_ms, percent(r.share)),
        lambda analysis: launched_by_operators(analysis, model_tag(analysis)),
        gpu_columns=("GPU ms",),
        most=12,
        under=model_tag,
    ),
    Section(
        "kernels",
        "4. Which kernels does it run?",
        "no GPU operations in this trace",
        model_kernels,
        ("kernel", "calls", "GPU ms", "share"),
        lambda k: (_start_of(k.name, 90), k.calls, k.ms, percent(k.share)),
        most=12,
        under=model_tag,
    ),
    Section(
        "decoder",
        "5. Where does the VAE decoder spend its time?",
        f"no {tags.VAE_DECODE} with parts in this trace",
        questions.decoder,
        _PART,
        _part,
        gpu_columns=_PART_GPU,
    ),
    Section(
        "update",
        "6. What does the KV-cache update cost?",
        f"no {tags.UPDATE_CACHE} in this trace",
        questions.update_cost,
        ("ms", "count", "of the transformer", "of the loop"),
        lambda c: (
            number(c.ms),
            c.count,
            percent(c.share_of_transformer),
            percent(c.share_of_run),
        ),
    ),
    Section(
        "expected",
        "7. Where does the time go, against what should be expected?",
        "no stages of the engine in this trace",
        expected_table,
        ("", "ms", "share", "expected\nms", "expected\nshare", "of the\nceiling", "the guide"),
        lambda e: (
            e.row,
            e.measured_ms,
            percent(e.share),
            e.expected_ms,
            percent(e.expected_share),
            percent(e.roof_share),
            e.guide,
        ),
        _guide,
    ),
    Section(
        "roofline",
        "7. How close to the machine's roof is each tag?",
        "no configuration of the engine in this trace, or no part whose work is counted",
        roofline,
        ("tag", "ms", "GFLOP/s", "FLOPs\n/byte", "roof\nGFLOP/s", "reached", "bound by"),
        lambda p: (
            p.tag,
            p.ms,
            p.gflops,
            p.intensity,
            p.roof_gflops,
            percent(p.roof_share),
            p.bound or "-",
        ),
    ),
    Section(
        "gaps",
        "9. Where does the GPU idle, and who is to blame?",
        "no GPU operations in this trace, or no idle stretch worth a name",
        lambda analysis: analysis.gaps,
        ("CPU meanwhile", "ms", "at ms", "tag", "next on the GPU"),
        lambda g: (
            _end_of(blamed(g), 70),
            g.ms,
            g.start_ms,
            g.tag and Name(_start_of(g.tag, 40)),
            Name(_start_of(g.next_op, 40)),
        ),
        most=8,
    ),
    Section(
        "memory",
        "9. What does each tag hold in memory?",
        "no allocations in this trace (profile_memory)",
        lambda analysis: analysis.memory,
        ("tag", "on", "peak MiB", "kept MiB"),
        lambda m: (m.tag, "CPU" if m.device < 0 else f"GPU {m.device}", m.peak_mib, m.kept_mib),
        gpu_columns=("on",),
        most=8,
    ),
)


SLOWEST = Section(
    "top",
    "Which tags are the slowest, without the tags inside them?",
    "no tags in this trace; see `glassworld trace ops`",
    questions.top,
    ("tag", "count", "CPU\nms", "own\nCPU", "GPU\nbusy", "own\nGPU", "GPU\nidle", "kernels"),
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
    gpu_columns=("GPU\nbusy", "own\nGPU", "GPU\nidle", "kernels"),
)
"""What `top` shows: no question of the report, but asked like one."""


def question(command: str) -> Section:
    """The question a command answers."""
    return next(each for each in QUESTIONS if each.command == command)
