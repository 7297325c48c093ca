"""Say where the time of compiled code went: by region, and by the operators that were fused."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from glassworld.trace.timeline.analysis import Analysis
from glassworld.trace.timeline.operator_totals import KernelTotals
from glassworld.trace.timeline.rows import largest_first
from glassworld.trace.timeline.torch_compile.kernel_names import CPP, FusedName
from glassworld.trace.timeline.torch_compile.regions import Region

_NO_REGION = Region("", "", ())


@dataclass(frozen=True)
class CompiledRegion:
    """A compiled region with all its runs at one place of the tag tree; milliseconds.

    `path` has the tags around it, `graph` is the hash of Inductor's graph ("": none was called).
    `forward_path` has the tags around the forward pass whose gradient it computes; () where the
    trace links none to it.
    `gpu_ms` adds up the durations of the GPU operations launched in it, `fused_ms` those of
    Inductor's kernels among them; in a trace without GPU work it is the C++ kernels' CPU time.
    `share` is of the durations of all GPU operations; without a GPU, of the window.
    """

    region: str
    graph: str
    path: tuple[str, ...]
    forward_path: tuple[str, ...]
    runs: int
    cpu_ms: float
    gpu_ms: float
    fused_ms: float
    share: float


@dataclass(frozen=True)
class FusedKernels:
    """The kernels of one kind that fuse the same operators, in one region; milliseconds.

    `operators` are the distinct ones, sorted by name. `kernels` counts the kernels with such a
    name, `calls` their runs. `ms` is GPU time, of C++ kernels CPU time. `share` is of the durations
    of all GPU operations; of C++ kernels, of the window. `region` is empty outside of any; `path`
    then has the tags around the launch. `forward_path` is that of the region.
    """

    operators: tuple[str, ...]
    kind: str
    region: str
    graph: str
    path: tuple[str, ...]
    forward_path: tuple[str, ...]
    kernels: int
    calls: int
    ms: float
    share: float


def compiled_regions(analysis: Analysis) -> list[CompiledRegion]:
    """Return the compiled regions, those with the most time first."""
    totals = analysis.compiled
    runs, count = totals.runs, len(totals.runs.regions)
    gpu_ns, fused_ns = [0] * count, [0] * count
    for group, name, _, ns in _rows(totals.inside):
        fused = totals.fused.get(name)
        on_gpu = fused is None or fused.kind != CPP
        gpu_ns[group] += ns if on_gpu else 0
        fused_ns[group] += ns if fused and on_gpu == analysis.on_gpu else 0
    whole_ms = _whole_ms(analysis, analysis.on_gpu)
    rows = []
    for i, (region, times, cpu_ns) in enumerate(
        zip(runs.regions, runs.count.tolist(), runs.cpu_ns.tolist(), strict=True)
    ):
        ms = (gpu_ns[i] if analysis.on_gpu else cpu_ns) / 1e6
        figures = (cpu_ns / 1e6, gpu_ns[i] / 1e6, fused_ns[i] / 1e6, ms / whole_ms)
        place = (region.name, region.graph, region.path, region.forward_path)
        rows.append(CompiledRegion(*place, times, *figures))
    return sorted(rows, key=lambda r: largest_first(r.share, *_place_order(r)))


def fused_kernels(analysis: Analysis) -> list[FusedKernels]:
    """Return the fused kernels by their operators and their region, the slowest first."""
    totals = analysis.compiled
    paths = [row.path for row in analysis.patterns]
    places = [
        *((*row, totals.runs.regions[row[0]]) for row in _rows(totals.inside)),
        *((*row, _outside(paths, row[0])) for row in _rows(totals.outside)),
    ]
    kernels: defaultdict[tuple[FusedName, Region], set[int]] = defaultdict(set)
    sums: defaultdict[tuple[FusedName, Region], list[int]] = defaultdict(lambda: [0, 0])
    for _, name, calls, ns, region in places:
        if fused := totals.fused.get(name):
            kernels[fused, region].add(name)
            sums[fused, region][0] += calls
            sums[fused, region][1] += ns
    rows = []
    for (fused, region), (calls, ns) in sums.items():
        place = (region.name, region.graph, region.path, region.forward_path)
        share = ns / 1e6 / _whole_ms(analysis, fused.kind != CPP)
        figures = (len(kernels[fused, region]), calls, ns / 1e6, share)
        rows.append(FusedKernels(fused.operators, fused.kind, *place, *figures))
    return sorted(rows, key=lambda r: largest_first(r.ms, r.operators, r.kind, *_place_order(r)))


def _place_order(part: CompiledRegion | FusedKernels) -> tuple[object, ...]:
    return part.region, part.graph, part.path, part.forward_path


def _rows(totals: KernelTotals) -> Iterator[tuple[int, int, int, int]]:
    columns = (totals.group, totals.name, totals.calls, totals.total)
    yield from zip(*(column.tolist() for column in columns), strict=True)


def _outside(paths: list[tuple[str, ...]], group: int) -> Region:
    return Region("", "", paths[group]) if group >= 0 else _NO_REGION


def _whole_ms(analysis: Analysis, on_gpu: bool) -> float:
    """Return the durations of all GPU operations, or the window; never 0."""
    ns = int(analysis.kernels.total.sum()) if on_gpu else analysis.duration_ns
    return (ns or 1) / 1e6


def region_remarks(analysis: Analysis) -> list[str]:
    """Say how C++ kernels get events, where regions ran on a CPU without any."""
    if analysis.on_gpu or analysis.compiled.fused:
        return []
    return [
        "Inductor's C++ kernels left no events. To see them, set "
        "torch._inductor.config.cpp.enable_kernel_profile = True before the model is compiled."
    ]
