"""Find the critical path of a run, and how long the run would take if a tag were faster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from glassworld.errors import InputError, TraceError
from glassworld.trace.analyzers.execution import slow_parts, tags_explain
from glassworld.trace.reading.columns import Codes, Ints, Mask
from glassworld.trace.timeline.analysis import Analysis, analyze_in_memory, module_trace
from glassworld.trace.timeline.attribution import DeviceOps, attribute_ops
from glassworld.trace.timeline.critical_path.graph import build_graph
from glassworld.trace.timeline.critical_path.threads import CPU, GPU
from glassworld.trace.timeline.merged import MergedAnalysis
from glassworld.trace.timeline.rows import largest_first
from glassworld.trace.timeline.tag_names import parse_tag_name
from glassworld.trace.timeline.tag_tree import TagTree, build_tree

HALF = 0.5
MOST_FACTOR = 100
MOST_TRIED = 8  # tags of which the run is computed again with half their time
MOST_IN_REPORT = 100_000  # launches and GPU operations
MOST_RANGES_IN_REPORT = 2_000_000


@dataclass(frozen=True)
class PathTag:
    """A tag's self time on the critical path, and the run if the tag took half its time.

    `share` is of the path. `half_run_ms` and `half_gain_ms` are None for tags further down.
    """

    tag: str
    ms: float
    share: float
    cpu_ms: float
    gpu_ms: float
    half_run_ms: float | None
    half_gain_ms: float | None


@dataclass(frozen=True)
class WhatIf:
    """The run if a tag, with all inside it, took `factor` times its time."""

    tag: str
    factor: float
    run_ms: float
    gain_ms: float


@dataclass(frozen=True)
class CriticalPath:
    """The chain that bounds the run: its length and what it is made of; milliseconds.

    `names` says what `tags` are: tags, modules, operators or kernels. The five kinds add up to
    `length_ms`; the CPU's and the GPU's time add up to that of the tags. `stream_waits` counts
    the waits between streams that the trace records, `ignored_syncs` the records of waits that
    name no call or no stream, or contradict the measured times.
    """

    window_ms: float
    length_ms: float
    cpu_ms: float
    launch_delay_ms: float
    gpu_ms: float
    synchronize_ms: float
    unexplained_ms: float
    names: str
    tags: list[PathTag]
    what_if: list[WhatIf]
    stream_waits: int
    ignored_syncs: int


@dataclass(frozen=True)
class _Naming:
    """What parts of the path are named after: a tree of ranges, and the operations in it."""

    kind: str
    tree: TagTree
    ops: DeviceOps

    @property
    def outermost(self) -> bool:
        """Whether the outermost range around a moment names it; else the innermost does."""
        return self.kind in ("operator", "kernel")


class PathFinder:
    """Finds the critical path of an analysis that holds all instances of its trace."""

    def __init__(self, analysis: Analysis, kind: str | None = None) -> None:
        self._analysis = analysis
        self._others: dict[str, PathFinder] = {}
        self._naming = _naming(analysis, kind or _best_kind(analysis))
        self.graph = build_graph(analysis.trace, self._naming.tree, self._naming.ops)
        self._label, self._names = self._labels()

    def critical_path(self, faster: Sequence[tuple[str, float]] = ()) -> CriticalPath:
        """Return the path; `faster` are tags with factors of their time to compute the run with.

        Raises `TraceError` if there is no such tag.
        """
        graph, path = self.graph, self.graph.path()
        cpu, launch_delay, gpu, synchronize, unexplained = (path.ns(graph) / 1e6).tolist()
        run_ns = int(graph.end.max())
        return CriticalPath(
            window_ms=self._analysis.duration_ns / 1e6,
            length_ms=run_ns / 1e6,
            cpu_ms=cpu,
            launch_delay_ms=launch_delay,
            gpu_ms=gpu,
            synchronize_ms=synchronize,
            unexplained_ms=unexplained,
            names=f"{self._naming.kind}s",
            tags=self._path_tags(path.work, run_ns),
            what_if=[self._what_if(tag, factor, run_ns) for tag, factor in faster],
            stream_waits=graph.stream_waits,
            ignored_syncs=graph.ignored_syncs,
        )

    def _what_if(self, tag: str, factor: float, run_ns: int) -> WhatIf:
        """Compute the run with a faster tag; where no tag is meant, a module or an operator."""
        kinds = list(dict.fromkeys((self._naming.kind, "tag", "module", "operator")))
        for is_meant in _ways_to_name(tag):
            for kind in kinds:
                if kind != self._naming.kind and kind not in self._others:
                    self._others[kind] = PathFinder(self._analysis, kind)
                finder = self._others.get(kind, self)
                rows = finder._under(is_meant)
                if rows.any():
                    ns = finder.graph.run_ns(finder._saved(rows, factor))
                    return WhatIf(tag, factor, ns / 1e6, (run_ns - ns) / 1e6)
        known = ", ".join(self._names[:8]) + (" ..." if len(self._names) > 8 else "")
        raise TraceError(
            f"{tag}: no such tag, module or operator in {self._analysis.trace.path}; it has "
            f"{known}; name one of them"
        )

    def _labels(self) -> tuple[Codes, list[str]]:
        """Return a number per row of work, and the names of these numbers."""
        tree, work = self._naming.tree, self.graph.work
        names: dict[str, int] = {}
        by_tag = self._naming.kind == "tag"
        of_group: list[int] = []
        for group, i in enumerate(_members(tree).tolist()):
            above = int(tree.by_name.parent[group])
            if self._naming.outermost and above >= 0:
                of_group.append(of_group[above])
            else:
                name = tree.patterns[tree.pattern[i]] if by_tag else tree.instance_name(i)
                of_group.append(names.setdefault(name, len(names)))
        nothing = names.setdefault(f"(no {self._naming.kind})", len(names))
        label = np.array([*of_group, nothing], dtype=np.int32)[work["group"]]
        if self._naming.kind != "tag":
            alone = work["op"] >= 0
            if self._naming.kind != "kernel":
                alone &= work["group"] < 0
            kernels, which = np.unique(
                self._naming.ops.rows["name"][work["op"][alone]], return_inverse=True
            )
            numbers = [names.setdefault(self._analysis.trace.names[k], len(names)) for k in kernels]
            label[alone] = np.array(numbers, dtype=np.int32)[which]
        return label, list(names)

    def _saved(self, rows: Mask, factor: float) -> Ints:
        """Return the time that each row of work saves where those marked take `factor` of it."""
        work = self.graph.work
        scaled = rows & np.isin(work["kind"], (CPU, GPU))
        saved: Ints = np.where(scaled, np.floor(work["ns"] * (1 - factor)), 0).astype(np.int64)
        return saved

    def _path_tags(self, on_path: Ints, run_ns: int) -> list[PathTag]:
        work, count = self.graph.work[on_path], len(self._names)
        label = self._label[on_path]
        cpu, gpu = (
            np.bincount(label[work["kind"] == kind], work["ns"][work["kind"] == kind], count)
            for kind in (CPU, GPU)
        )
        names, ns = self._names, cpu + gpu
        order = sorted(
            np.flatnonzero(ns).tolist(), key=lambda i: largest_first(float(ns[i]) / 1e6, names[i])
        )
        rows = []
        for position, i in enumerate(order):
            tried = position < MOST_TRIED
            half = self.graph.run_ns(self._saved(self._label == i, HALF)) if tried else None
            rows.append(
                PathTag(
                    names[i],
                    float(ns[i]) / 1e6,
                    float(ns[i]) / run_ns,
                    float(cpu[i]) / 1e6,
                    float(gpu[i]) / 1e6,
                    None if half is None else half / 1e6,
                    None if half is None else (run_ns - half) / 1e6,
                )
            )
        return rows

    def _under(self, is_meant: Callable[[str], bool]) -> Mask:
        """Mark the work of what has such a name or pattern, and of all inside it."""
        tree, groups = self._naming.tree, self._naming.tree.by_name
        inside = np.zeros(len(groups) + 1, dtype=bool)
        for group, i in enumerate(_members(tree).tolist()):  # parents come before children
            names = (tree.instance_name(i), tree.patterns[tree.pattern[i]])
            inside[group] = inside[groups.parent[group]] or any(map(is_meant, names))
        labels = np.array([is_meant(name) for name in self._names], dtype=bool)
        marked: Mask = inside[self.graph.work["group"]] | labels[self._label]
        return marked


def _ways_to_name(tag: str) -> tuple[Callable[[str], bool], ...]:
    """Return what tells whether a name is meant: it is the same, of its pattern, or has it."""
    pattern = parse_tag_name(tag)[0]
    return tag.__eq__, pattern.__eq__, lambda name: tag.lower() in name.lower()


def _members(tree: TagTree) -> Ints:
    """Return an instance of each path of names."""
    member = np.zeros(len(tree.by_name), dtype=np.int64)
    member[tree.by_name.of] = np.arange(len(tree))
    return member


def _best_kind(analysis: Analysis) -> str:
    """Return what explains a run: tags, or what takes most of the time."""
    if tags_explain(analysis):
        return "tag"
    parts = slow_parts(analysis)
    return parts[0].kind if parts else "operator"


def _naming(analysis: Analysis, kind: str) -> _Naming:
    """Return the ranges of a kind; for kernels, the operators around them on the CPU."""
    if kind == "tag":
        return _Naming(kind, analysis.tree, analysis.ops)
    if kind == "module":
        trace, passes = module_trace(analysis.trace, analysis.passes)
        if trace is not None:
            modules = analyze_in_memory(trace, passes)
            return _Naming(kind, modules.tree, modules.ops)
    called = replace(analysis.trace, tag_rows=analysis.trace.ops, carried=0)
    tree = build_tree(called)
    return _Naming(kind, tree, attribute_ops(called, tree, analysis.ops.rows))


def reported_path(analysis: Analysis) -> CriticalPath | None:
    """Return the critical path for the report; None where the trace is too large for it."""
    if not _fits_report(analysis):
        return None
    known = analysis.derived.get("critical_path")
    if not isinstance(known, CriticalPath):
        known = analysis.derived["critical_path"] = PathFinder(analysis).critical_path()
    return known


def _fits_report(analysis: Analysis) -> bool:
    """Return whether the report has the critical path of this trace."""
    trace = analysis.trace
    calls = len(trace.launch_rows) + len(trace.device_rows)
    ranges = len(trace.tag_rows) + len(trace.ops) + len(trace.python)
    return (
        not isinstance(analysis, MergedAnalysis)
        and calls <= MOST_IN_REPORT
        and ranges <= MOST_RANGES_IN_REPORT
    )


def path_tags(analysis: Analysis) -> list[PathTag]:
    """Return the tags on the critical path, the longest first; none where there is no path."""
    path = reported_path(analysis)
    return path.tags if path else []


def path_remarks(analysis: Analysis) -> list[str]:
    """Say how long the path is and what it is made of."""
    path = reported_path(analysis)
    return [path_sentence(path), *sync_sentences(path)] if path else []


def path_sentence(path: CriticalPath) -> str:
    """Say how long a path is and what it is made of."""
    parts = (
        ("CPU", path.cpu_ms),
        ("launch delay", path.launch_delay_ms),
        ("GPU", path.gpu_ms),
        ("synchronize", path.synchronize_ms),
        ("unexplained wait", path.unexplained_ms),
    )
    made_of = ", ".join(f"{name} {ms / path.length_ms:.1%}" for name, ms in parts if ms > 0)
    return f"The path takes {path.length_ms:,.2f} ms: {made_of}."


def sync_sentences(path: CriticalPath) -> list[str]:
    """Say how many waits between streams are in the path's graph, and what was left out."""
    sentences = []
    if path.stream_waits:
        sentences.append(f"Waits of one stream for another: {path.stream_waits:,}.")
    if path.ignored_syncs:
        sentences.append(
            f"{path.ignored_syncs:,} records of waits (cuda_sync) were ignored: they name no call "
            "or no stream, or contradict the measured times."
        )
    return sentences


def what_if_sentence(run: WhatIf) -> str:
    """Say how long the run would take with a faster tag."""
    return (
        f"If {run.tag} took {run.factor:g} times its time, the run would take "
        f"{run.run_ms:,.2f} ms ({-run.gain_ms:+,.2f} ms)."
    )


def parse_factor(text: str) -> tuple[str, float]:
    """Parse `TAG=FACTOR`. Raises `InputError` if that is not what the text is."""
    tag, equals, number = text.rpartition("=")
    try:
        factor = float(number)
    except ValueError:
        factor = -1.0
    if not (tag and equals and 0 <= factor <= MOST_FACTOR):
        raise InputError(
            f"--faster {text}: name a tag and a factor from 0 to {MOST_FACTOR}, such as "
            "VAE_Decode=0.5"
        )
    return tag, factor
