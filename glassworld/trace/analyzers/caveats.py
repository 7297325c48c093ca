"""Caveats for a reader of the figures: what the trace lacks, hides or distorts."""

from __future__ import annotations

from glassworld.profiling import registry as tags
from glassworld.trace.analyzers.bottleneck import LEAST_OPERATIONS, gpu_use, share
from glassworld.trace.analyzers.execution import only_memory, replays_graphs, runs_compiled
from glassworld.trace.analyzers.flops import Config
from glassworld.trace.analyzers.peak_rates import PeakRates, read_peak_rates, stored_peak_rates
from glassworld.trace.analyzers.run_config import device_kind, late_frame, run_config, run_machine
from glassworld.trace.timeline.analysis import Analysis
from glassworld.trace.timeline.attribution import busy_by_device
from glassworld.trace.timeline.graph_kernels import NO_PASS
from glassworld.trace.timeline.merged import MergedAnalysis

OVERHEAD_SHARE = 0.05
QUEUED_SHARE = 0.05
OVERLAP_SHARE = 0.05
OUTSIDE_SHARE = 0.2
MOST_DEVICES = 8  # that a note names


def find_caveats(analysis: Analysis) -> list[str]:
    """Return one sentence per caveat."""
    return [
        *analysis.trace.losses,
        *analysis.trace.left_out,
        *_flight(analysis),
        *_large(analysis),
        *_tags(analysis),
        *_gpu(analysis),
        *_compiled(analysis),
        *_machine(analysis),
    ]


def _flight(analysis: Analysis) -> list[str]:
    """Say which late frame a flight recording is of, and what its times are."""
    late = late_frame(analysis.trace.metadata)
    if late is None:
        return []
    host = (
        "a flight recording has CPU times only, without operators and kernels: on a GPU, a tag "
        "lasts as long as launching its work"
    )
    try:
        about = (
            f"frame {late['frame']:d} of block {late['block']:d} was sent "
            f"{late['late_ms'] / 1e3:.2f} s late, at {late['time']}"
        )
        if "waited_ms" in late:
            about += (
                f": the block waited {late['waited_ms']:,.0f} ms for the device, took "
                f"{late['generated_ms']:,.0f} ms to generate and {late['encoded_ms']:,.0f} ms to "
                "encode"
            )
    except (ArithmeticError, KeyError, TypeError, ValueError):  # damaged
        return [host]
    return [about, host]


def _large(analysis: Analysis) -> list[str]:
    if not analysis.dropped_instances:
        return []
    whole = len(analysis.tree) + analysis.dropped_instances
    caveats = [
        f"sums are of all {whole:,} instances of tags; blocks, steps and single instances are from "
        f"the most unusual parts of the trace, with {len(analysis.tree):,} instances"
    ]
    if analysis.dropped_path_instances:
        caveats.append(
            "the trace has too many paths of tags to sum up each: "
            f"{analysis.dropped_path_instances:,} instances count only in the sums by pattern"
        )
    return caveats


def _tags(analysis: Analysis) -> list[str]:
    if only_memory(analysis):
        return ["only memory was recorded: there are no operators and no GPU operations"]
    if not analysis.patterns:
        return ["no tags (user annotations) in this trace: only operators and kernels are shown"]
    if analysis.clipped:
        return [
            f"{analysis.clipped} tags outlast the tag they began in; their times are cut to its end"
        ]
    return []


def _gpu(analysis: Analysis) -> list[str]:
    if only_memory(analysis):
        return []
    if not analysis.on_gpu:
        return ["no GPU operations in this trace: every time is CPU time"]
    caveats, coverage = _gpu_use(analysis), analysis.coverage
    unlaunched = coverage.gpu_ops - coverage.launched
    if unlaunched:
        caveats.append(
            f"{unlaunched} of {coverage.gpu_ops} GPU operations have no launch in the trace"
        )
    untagged = coverage.launched - coverage.attributed
    if untagged and analysis.patterns:
        caveats.append(f"{untagged} of {coverage.gpu_ops} GPU operations lie outside every tag")
    queued = analysis.idle.queued_ms
    if queued > QUEUED_SHARE * analysis.duration_ns / 1e6:
        caveats.append(
            f"for {queued:,.{0 if queued >= 10 else 2}f} ms the GPU ran no "
            "operation of the trace although some were queued: it ran work launched before the "
            "trace began, or its queue was blocked"
        )
    gpu = analysis.gpu
    covered = gpu is not None and gpu.covered_ops > OVERLAP_SHARE * coverage.gpu_ops
    if gpu and (covered or gpu.overlap_ns > OVERLAP_SHARE * gpu.busy_ns):
        caveats.append(
            f"operations overlap others of their own stream for {gpu.overlap_ns / 1e6:,.1f} ms "
            f"({gpu.covered_ops} of them all the time): either operations that hold others, as "
            "XLA's loops do, programmatic dependent launches, or wrong times in the trace; busy "
            "time counts them once, sums of durations do not"
        )
    return [*caveats, *_devices(analysis), *graph_caveats(analysis)]


def _devices(analysis: Analysis) -> list[str]:
    """Say how long each of several devices worked: together they are busy while any is."""
    trace = analysis.whole if isinstance(analysis, MergedAnalysis) else analysis.trace
    busy = busy_by_device(trace)
    if not busy:
        return []
    window = max(1, analysis.duration_ns)
    shares = [f"{name} works {share(ns / window)}" for name, ns in busy.items()]
    more = ", ..." if len(shares) > MOST_DEVICES else ""
    return [
        "operations ran on several devices or for several processes, and the GPU counts as busy "
        f"while any of them works: {', '.join(shares[:MOST_DEVICES])}{more} of the trace"
    ]


def graph_caveats(analysis: Analysis) -> list[str]:
    """Say which replayed graphs have tags, and why others have none."""
    graphs = analysis.graphs
    if not (graphs.launches or graphs.labeled):
        if not replays_graphs(analysis):
            return []
        reasons = [*sorted(graphs.unnamed, key=graphs.unnamed.__getitem__, reverse=True), NO_PASS]
        return [
            f"the run replays GPU graphs: tags inside them cannot be seen, as {reasons[0]}; "
            "--graph-capture takes a trace of such a pass"
        ]
    caveats = []
    if graphs.launches:
        caveats.append(
            f"the {graphs.kernels:,} kernels of {graphs.launches:,} replayed GPU graphs have the "
            "tags of a pass that ran the same kernels in the same order without a graph; CPU times "
            "inside a graph are equal shares of its launch call"
        )
    if graphs.labeled:
        caveats.append(
            f"{graphs.labeled:,} replayed GPU graphs have the labels of their kernels "
            "(mark_kernels, set during the capture) in place of tags"
        )
    for reason, count in sorted(graphs.unnamed.items()):
        caveats.append(f"{count:,} replayed GPU graphs have no tags inside: {reason}")
    return caveats


def _gpu_use(analysis: Analysis) -> list[str]:
    """Say what happened before the GPU's first and after its last operation, if that is much."""
    use, gpu = gpu_use(analysis), analysis.gpu
    if use is None or gpu is None:
        return []
    caveats = []
    if analysis.coverage.gpu_ops < LEAST_OPERATIONS:
        caveats.append(
            f"too few GPU operations ({analysis.coverage.gpu_ops}) to name a bottleneck: the GPU "
            f"worked {use.busy_ms:,.3g} ms, {share(use.busy_share)} of the trace"
        )
    before, after = use.first_op_ms, (analysis.trace.end - gpu.until) / 1e6
    if before > OUTSIDE_SHARE * use.window_ms:
        first = next((gap for gap in analysis.gaps if not gap.start_ms), None)
        during = ""
        if gpu.first_delay_ns / 1e6 > before / 2:
            during = f"; it was queued for {gpu.first_delay_ns / 1e6:,.1f} ms"
        elif first and first.culprit:
            during = f"; the CPU was in {first.culprit}"
        caveats.append(
            f"the first GPU operation starts {before:,.1f} ms into the trace, after "
            f"{share(before / use.window_ms)} of it{during}"
        )
    if after > OUTSIDE_SHARE * use.window_ms:
        caveats.append(
            f"the last GPU operation ends {after:,.1f} ms before the trace does: the GPU is "
            f"not used in the last {share(after / use.window_ms)} of it"
        )
    return caveats


def _compiled(analysis: Analysis) -> list[str]:
    present = {row.pattern for row in analysis.patterns}
    expected = {
        tags.DIFFUSION_FORWARD: tags.LAYER,
        tags.LAYER: tags.SELF_ATTENTION,
        tags.DECODE_FRAME: tags.DEC_UPSAMPLE,
    }
    caveats = [
        f"{outer} has no {inner} inside: compilation or a GPU graph hides these tags"
        for outer, inner in expected.items()
        if outer in present and inner not in present
    ]
    if runs_compiled(analysis) and analysis.patterns:
        caveats.append("the run uses torch.compile: tags inside compiled regions are missing")
    return caveats


def _machine(analysis: Analysis) -> list[str]:
    caveats = []
    overhead = analysis.trace.overhead_ns / analysis.duration_ns if analysis.duration_ns else 0.0
    if overhead > OVERHEAD_SHARE:
        caveats.append(
            f"the profiler itself took {overhead:.0%} of the trace's time and slowed the run"
        )
    metadata = analysis.trace.metadata
    config = run_config(metadata)
    rates = read_peak_rates(metadata)
    if config and rates and _other_threads(config, rates):
        caveats.append(
            f"the run used {config['threads']} threads, the peak rates stored here were measured "
            f"with {rates.threads}: measure them with OMP_NUM_THREADS={config['threads']} "
            "glassworld bench peak-rates"
        )
    if config and rates is None:
        others = stored_peak_rates(config)
        reason = (
            f"the run was on {run_machine(metadata, config)}, the peak rates stored here were "
            f"measured on {others.machine}"
            if others
            else "no peak rates are stored for this device and precision"
        )
        caveats.append(
            f"{reason}, so you see shares of the FLOPs in place of expected times; run "
            "`glassworld bench peak-rates` on the run's machine to measure them"
        )
    return caveats


def _other_threads(config: Config, rates: PeakRates) -> bool:
    """Return whether a run on the CPU had another number of threads than its peak rates."""
    threads = {config.get("threads"), rates.threads} - {None}
    return device_kind(config) == "cpu" and len(threads) == 2
