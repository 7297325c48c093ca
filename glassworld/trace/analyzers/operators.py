"""Sum up the operators and kernels under a tag."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from glassworld.errors import TraceError
from glassworld.profiling import registry as tags
from glassworld.trace.reading.columns import Codes, Ints, Mask
from glassworld.trace.timeline.analysis import Analysis
from glassworld.trace.timeline.rows import largest_first
from glassworld.trace.timeline.tag_names import parse_tag_name

NEARLY_ALL = 0.9  # of the GPU's busy time, launched by operators: then nothing need be said


@dataclass(frozen=True)
class OperatorRow:
    """An operator over all its calls; milliseconds. CPU and GPU time include what it calls.

    A call that the same operator made counts among the calls, not again in the times around it.
    `share` is of the time that counts: of the operators not called by another operator.
    """

    name: str
    calls: int
    cpu_ms: float
    self_cpu_ms: float
    gpu_ms: float
    share: float
    gpu_self_ms: float


@dataclass(frozen=True)
class KernelRow:
    """A GPU operation over all its runs: the sum of their milliseconds, its share of all sums."""

    name: str
    calls: int
    ms: float
    share: float


def operator_rows(analysis: Analysis, tag: str | None = None) -> list[OperatorRow]:
    """Return operators under every tag that `tag` names (None: the whole trace), slowest first.

    `tag` is a name, a pattern or part of one. Raises `TraceError` if no tag matches.
    """
    table = analysis.operators
    selected = _under(analysis, table.group, tag)
    outermost = table.gpu_outermost if analysis.on_gpu else table.outermost
    names, where = np.unique(table.name[selected], return_inverse=True)
    columns = (table.calls, table.total, table.self_total, table.gpu, outermost, table.gpu_self)
    calls, total, own, gpu, outer, gpu_own = (
        np.bincount(where, column[selected], minlength=len(names)) for column in columns
    )
    whole = float(outer.sum()) or 1.0
    text = analysis.trace.names
    order = sorted(
        range(len(names)), key=lambda i: (-outer[i], -gpu[i], -total[i], text[int(names[i])])
    )
    return [
        OperatorRow(
            text[int(names[i])],
            int(calls[i]),
            float(total[i]) / 1e6,
            float(own[i]) / 1e6,
            float(gpu[i]) / 1e6,
            float(outer[i]) / whole,
            float(gpu_own[i]) / 1e6,
        )
        for i in order
    ]


def launched_by_operators(analysis: Analysis, tag: str | None = None) -> list[str]:
    """Say how much of the GPU's busy time operators launched, if that is not nearly all of it.

    A graph's replay is one call of the runtime, and some libraries launch by themselves.
    """
    if analysis.gpu is None:
        return []
    table, busy = analysis.operators, float(analysis.gpu.busy_ns)
    if tag is not None:
        groups = matching_groups(analysis, tag)
        busy = 1e6 * sum(analysis.patterns[group].gpu_self_ms for group in groups)
    launched = int(table.gpu_outermost[_under(analysis, table.group, tag)].sum())
    if launched >= NEARLY_ALL * busy:
        return []
    return [
        f"Operators launched {launched / busy:.0%} of the GPU's busy time; shares are of this "
        "part. The rest was launched outside of operators, as the kernels of graphs are."
    ]


def kernel_rows(analysis: Analysis, tag: str | None = None) -> list[KernelRow]:
    """Return GPU operations by name under every tag that `tag` names (None: all), slowest first.

    Raises `TraceError` if no tag matches.
    """
    table = analysis.kernels
    selected = _under(analysis, table.group, tag)
    names, where = np.unique(table.name[selected], return_inverse=True)
    calls = np.bincount(where, table.calls[selected], minlength=len(names))
    spent = np.bincount(where, table.total[selected], minlength=len(names)) / 1e6
    whole = float(spent.sum()) or 1.0
    rows = [
        KernelRow(
            analysis.trace.names[name], int(calls[i]), float(spent[i]), float(spent[i]) / whole
        )
        for i, name in enumerate(names.tolist())
    ]
    return sorted(rows, key=lambda row: largest_first(row.ms, row.name))


def model_kernels(analysis: Analysis) -> list[KernelRow]:
    """Return the GPU operations of the diffusion model; of the whole trace if it has none."""
    return kernel_rows(analysis, model_tag(analysis))


def model_tag(analysis: Analysis) -> str | None:
    """Return the diffusion model's tag, if the trace has it."""
    has_model = any(row.pattern == tags.DIFFUSION_FORWARD for row in analysis.patterns)
    return tags.DIFFUSION_FORWARD if has_model else None


def model_operators(analysis: Analysis) -> list[OperatorRow]:
    """Return the operators of the diffusion model; of the whole trace if it has none."""
    return operator_rows(analysis, model_tag(analysis))


def _under(analysis: Analysis, group: Codes, tag: str | None) -> Mask:
    """Mark the rows of a table by `group` under the tags that `tag` names; all if None."""
    if tag is None:
        return np.ones(len(group), dtype=bool)
    return np.isin(group, matching_groups(analysis, tag))


def matching_groups(analysis: Analysis, tag: str) -> Ints:
    """Return the pattern groups at or below every tag that `tag` names.

    Raises `TraceError` if no tag matches.
    """
    patterns = analysis.patterns
    exact = [i for i, row in enumerate(patterns) if row.pattern in (tag, parse_tag_name(tag)[0])]
    part = re.compile(re.escape(tag), re.IGNORECASE)
    groups = set(exact or [i for i, row in enumerate(patterns) if part.search(row.pattern)])
    if not groups:
        names = ", ".join(row.name for row in patterns[:8]) or "none at all"
        more = " ..." if len(patterns) > 8 else ""
        raise TraceError(
            f"{tag}: no such tag in {analysis.trace.path}; it has {names}{more}; name one of them"
        )
    for group, parent in enumerate(analysis.pattern_parents):
        if parent in groups:
            groups.add(group)
    return np.array(sorted(groups))
