"""Tables of a benchmark for the terminal: every figure that has been measured."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.table import Table

from glassworld.bench.regression import SpeedRatio, performance_ratios
from glassworld.bench.section_runner import Figures
from glassworld.bench.threads.comparison import summarize_condition

Rows = dict[str, str]

HIGHEST_SHARE = 1.1
"""A larger share of a peak says that the peak was measured too low: other processes ran."""


def print_benchmark(figures: Figures, console: Console) -> None:
    """Print the figures of every section that has finished."""
    table = Table("", "", show_header=False)
    for needed, rows in SECTIONS.values():
        if needed in figures:
            for name, value in rows(figures).items():
                table.add_row(name, value)
            table.add_section()
    console.print(table)


def section_summary(section: str, figures: Figures) -> str:
    """Return the most important figure of a section as one line."""
    if section not in SECTIONS:
        return ""
    rows = SECTIONS[section][1](figures)
    return next((f"{name}: {value}" for name, value in rows.items()), "")


def print_comparison(rows: list[SpeedRatio], baseline: Figures, console: Console) -> None:
    """Print ratios beside those of the committed baseline."""
    measured_on = baseline["machine"].get("gpu") or baseline["machine"]["processor"]
    table = Table("", f"baseline ({measured_on})", "now", "")
    for row in rows:
        verdict = "[red]slower[/red]" if row.dropped else "ok"
        table.add_row(row.name, f"{row.before:.3f}", f"{row.now:.3f}", verdict)
    console.print(table)


def _world_rows(figures: Figures) -> Rows:
    config = figures["config"]
    return {"world": f"{config['world']}, {config['dtype']} on {config['device']}"}


def _cold_start_rows(figures: Figures) -> Rows:
    rows = {"process start to first frames": f"{figures['first_frames_s']:.1f} s"}
    for kind in ("cold", "warm"):
        if f"first_frames_{kind}_cache_s" in figures:
            seconds = figures[f"first_frames_{kind}_cache_s"]
            rows[f"  compiled, {kind} cache"] = f"{seconds:.1f} s"
    rows["memory: weights"] = f"{figures['weights_mb']:.0f} MB"
    rows["memory: a session"] = f"{figures['session_mb']:.1f} MB"
    peak = figures["peak_memory_mb"]
    rows["memory: peak of the process"] = "not measured" if peak is None else f"{peak:.0f} MB"
    return rows


def peak_rates_line(rates: Figures) -> str:
    """Return stored or measured peak rates as one line."""
    return (
        f"matmul {rates['matmul_gflops']:.0f} GFLOP/s in {rates['dtype']}, "
        f"convolution {rates['conv_gflops']:.0f} GFLOP/s in {rates['conv_dtype']}, "
        f"copy {rates['copy_gbps']:.1f} GB/s"
    )


def _peak_rate_rows(figures: Figures) -> Rows:
    rates = figures["ceilings"]
    rows = {"peak rates": peak_rates_line(rates)}
    if "stored_ceilings" not in figures:
        return rows
    stored = figures["stored_ceilings"]
    if stored is None:
        rows["  against the stored ones"] = (
            f"none stored for {rates['threads']} threads; glassworld bench peak-rates stores them"
        )
    else:
        changes = ", ".join(
            f"{name} {100 * (stored['ratios'][rate] - 1):+.0f} %"
            for name, rate in (
                ("matmul", "matmul_gflops"),
                ("convolution", "conv_gflops"),
                ("copy", "copy_gbps"),
            )
        )
        rows["  against the stored ones"] = f"{changes}; those: {measurement_line(stored)}"
    return rows


def measurement_line(stored: Figures) -> str:
    """Return when, with how many threads and under which load peak rates were measured."""
    load = stored.get("load_average")
    return ", ".join(
        (
            f"measured {stored.get('measured_at') or 'at an unknown time'}",
            f"{stored['threads']} thread{'s' if stored['threads'] != 1 else ''}",
            "load average unknown" if load is None else f"load average {load:.1f}",
        )
    )


def _steady_rows(figures: Figures) -> Rows:
    rate = figures["config"]["frame_rate"]
    rows = {
        "frames per second, decoding included": f"{figures['fps_median']:.1f}"
        f" (slowest tenth {figures['fps_slowest_tenth']:.1f})",
        "frames per second in live play": f"{figures['live_fps_median']:.1f}",
        "frames per second of the eager baseline": f"{figures['baseline_fps_median']:.1f}"
        f" ({figures['speedup']:.1f} times slower, {figures['live_speedup']:.1f} than live play)",
        "a block": f"{figures['block_ms_median']:.1f} ms"
        f" (interquartile range {figures['block_ms_spread']:.1f} ms)",
        f"live blocks too late for {rate} frames per second": f"{figures['deadline_misses']}"
        f" of {figures['blocks']}",
    }
    for kind in ("stages_ms", "layer_kinds_ms"):
        rows |= {name: f"{ms:.1f} ms a block" for name, ms in figures[kind].items()}
    return rows


def _accuracy_rows(figures: Figures) -> Rows:
    error = figures["distance"]
    return {
        "latents, error against the baseline": f"{error['latents_in_spreads']:.1e} std",
        "frames, PSNR against the baseline": f"{error['psnr_db']:.1f} dB",
    }


def _matmul_rows(figures: Figures) -> Rows:
    if figures["products"] is None:
        return {"matmuls": "not measured: captured graphs hide them"}
    return {"matmuls, share of their speed alone": _share_text(figures["products"]["share"])}


def _share_text(share: float) -> str:
    """Return a share of a peak in percent, unless other load made it meaningless."""
    if share > HIGHEST_SHARE:
        return "not measured: other processes slowed the measurement of the peak"
    return f"{100 * share:.0f} %"


def _latency_rows(figures: Figures) -> Rows:
    latency = figures["key_to_frame_ms"]
    return {"key to frame": f"{latency['median']:.0f} ms (worst {latency['worst']:.0f} ms)"}


def _session_rows(figures: Figures) -> Rows:
    return {
        f"{row['sessions']} session{'s' if row['sessions'] > 1 else ''}": (
            f"{row['fps_each_together']:.1f} frames per second each "
            f"in a batch, {row['fps_each_in_turn']:.1f} in turn"
        )
        for row in figures["sessions"]
    }


def _roofline_rows(figures: Figures) -> Rows:
    if "speedup" not in figures:
        return {}
    return {
        name: _share_text(ratio) if "share" in name else f"{ratio:.2f}"
        for name, ratio in performance_ratios(figures).items()
    }


def _thread_rows(figures: Figures) -> Rows:
    if figures["threads"] is None:
        return {"threads": "not measured: a GPU computes"}
    return {
        f"frames per second by threads, {condition}": summarize_condition(by_kind)
        for condition, by_kind in figures["threads"].items()
    }


SECTIONS: dict[str, tuple[str, Callable[[Figures], Rows]]] = {
    "world": ("config", _world_rows),
    "cold start": ("first_frames_s", _cold_start_rows),
    "peak rates": ("ceilings", _peak_rate_rows),
    "steady state": ("fps_median", _steady_rows),
    "accuracy": ("distance", _accuracy_rows),
    "matmul": ("products", _matmul_rows),
    "latency": ("key_to_frame_ms", _latency_rows),
    "sessions": ("sessions", _session_rows),
    "roofline": ("roofline", _roofline_rows),
    "threads": ("threads", _thread_rows),
}
"""By section: the figure that shows it has finished, and its rows."""
