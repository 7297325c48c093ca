"""`glassworld bench load`: many simulated viewers, and what each of them gets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from glassworld.bench.load.jitter_buffer import BUFFER_SECONDS
from glassworld.bench.load.viewer import Viewer, Viewing
from glassworld.bench.peak_rates import load_average
from glassworld.bench.play.check import percentile, serving
from glassworld.bench.plots import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Axis, Panel, svg
from glassworld.bench.section_runner import Figures
from glassworld.errors import InputError
from glassworld.files import replacing, writable_file
from glassworld.profiling.metadata import machine, versions

WARM_UP = 5.0
"""Seconds of each session that are not measured."""

START_SECONDS = 0.2
"""Time between the arrivals of two viewers."""

INTERVALS = 20
"""Points of the plot of deadlines over time."""

MAX_PLAYERS, MAX_MINUTES = 1000, 600.0


@dataclass(frozen=True)
class LoadTestOptions:
    """The flags of the command line; see its help for each."""

    players: int = 4
    minutes: float = 1.0
    url: str | None = None
    world: str | Path | None = None
    device: str = "auto"
    json_file: Path | None = None
    plot: Path | None = None


def run_load_test(options: LoadTestOptions, warm_up: float = WARM_UP) -> Figures:
    """Let viewers play, print and return what they got.

    Raises `InputError` if no server is there, or if no viewer gets a seat.
    """
    if not 1 <= options.players <= MAX_PLAYERS or not 0 < options.minutes <= MAX_MINUTES:
        raise InputError(f"bench load: at most {MAX_PLAYERS} players and {MAX_MINUTES:.0f} minutes")
    for path in filter(None, (options.json_file, options.plot)):
        writable_file(path)
    figures: Figures = {
        "taken": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "load_before": load_average(),
        "players": options.players,
        "buffer_seconds": BUFFER_SECONDS,
    }
    viewings, megabytes = _measure(options, warm_up)
    figures |= summarize_viewings(viewings)
    figures["megabytes_per_session"] = megabytes
    _print(figures, Console())
    _write(options, figures, viewings)
    return figures


def _measure(options: LoadTestOptions, warm_up: float) -> tuple[list[Viewing], float | None]:
    """Return what each viewer has seen, and a session's memory where the server is ours."""
    seconds = 60 * options.minutes
    with ExitStack() as stack:
        if options.url is not None:
            return asyncio.run(watch_together(options.url, options.players, warm_up, seconds)), None
        server = stack.enter_context(serving(options.world, options.device))
        before, peak = server.megabytes(), 0.0

        async def measure() -> list[Viewing]:
            nonlocal peak
            url = f"http://127.0.0.1:{server.port}/"
            watching = asyncio.create_task(watch_together(url, options.players, warm_up, seconds))
            while not watching.done():
                await asyncio.wait([watching], timeout=1)
                peak = max(peak, await asyncio.to_thread(server.megabytes))
            return watching.result()

        viewings = asyncio.run(measure())
        seated = max(1, sum(not viewing.refused for viewing in viewings))
        return viewings, (peak - before) / seated


async def watch_together(url: str, players: int, warm_up: float, seconds: float) -> list[Viewing]:
    """Let viewers arrive one after another and watch; each is measured for `seconds`."""
    watching = []
    for seed in range(players):
        watching.append(asyncio.create_task(Viewer(url, seed, warm_up, seconds).watch()))
        await asyncio.sleep(START_SECONDS)
    return list(await asyncio.gather(*watching))


def summarize_viewings(viewings: Sequence[Viewing]) -> Figures:
    """Return the figures of all viewers together, and each one's frames per second.

    Raises `InputError`, with a viewer's reason, if nobody has seen a frame.
    """
    watched = [viewing for viewing in viewings if viewing.frames]
    failures = sorted({viewing.failure for viewing in viewings if viewing.failure})
    refused = sum(viewing.refused for viewing in viewings)
    if not watched:
        reason = failures[0] if failures else f"all {refused} were refused"
        raise InputError(f"bench load: no player has seen a frame: {reason}")
    frames = sum(viewing.frames for viewing in watched)
    minutes = sum(viewing.seconds for viewing in watched) / 60
    return {
        "watched": len(watched),
        "refused": refused,
        "failures": failures,
        "frames": frames,
        "fps": [viewing.frames / viewing.seconds for viewing in watched],
        "deadline_attainment": sum(viewing.on_time for viewing in watched) / frames,
        "stalls_per_minute": sum(viewing.stalls for viewing in watched) / minutes,
        "moves": sum(viewing.moves for viewing in watched),
        "input_to_frame_ms": _quantiles(s for each in watched for s in each.input_to_frame),
        "block_ms": _quantiles(s for each in watched for s in each.block_seconds),
    }


def _quantiles(seconds: Iterable[float]) -> dict[str, float]:
    values = [1e3 * value for value in seconds]
    if not values:
        return {}
    return {f"p{share}": percentile(values, share / 100) for share in (50, 95, 99)}


def _print(figures: Figures, console: Console) -> None:
    def line(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    line(f"players: {figures['watched']} watched, {figures['refused']} were refused a seat")
    for failure in figures["failures"]:
        line(f"failed: {failure}")
    line(f"deadline attainment: {100 * figures['deadline_attainment']:.2f} % of frames on time")
    rates = figures["fps"]
    line(f"frames per second: slowest {min(rates):.2f}, fastest {max(rates):.2f}")
    line(f"stalls: {figures['stalls_per_minute']:.2f} per minute and player")
    for name, key in (("input to frame", "input_to_frame_ms"), ("block", "block_ms")):
        quantiles = figures[key]
        text = ", ".join(f"{share} {value:.0f} ms" for share, value in quantiles.items())
        line(f"{name}: {text or 'none seen'}")
    memory = figures["megabytes_per_session"]
    line(f"memory per session: {'not measured' if memory is None else f'{memory:.0f} MB'}")


def _write(options: LoadTestOptions, figures: Figures, viewings: Sequence[Viewing]) -> None:
    if options.json_file is not None:
        with replacing(options.json_file) as partial:
            partial.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    if options.plot is not None:
        with replacing(options.plot) as partial:
            partial.write_text(load_plot(viewings), encoding="utf-8")


def load_plot(viewings: Sequence[Viewing]) -> str:
    """Draw, as SVG, the share of inputs answered within a time, and deadlines over time."""
    panels = []
    latencies = sorted(1e3 * s for each in viewings for s in each.input_to_frame)
    if latencies:
        shares = [(ms, 100 * (rank + 1) / len(latencies)) for rank, ms in enumerate(latencies)]
        x = Axis(0, 1.05 * latencies[-1], LEFT, WIDTH - RIGHT)
        panels.append(Panel("input to frame", "ms", "% of inputs", x, _percent_axis()))
        panels[-1].curve([(0.0, 0.0), *shares])
    late = [(when, delay) for each in viewings for when, delay in each.late]
    end = max(when for when, _ in late)
    points = []
    period = min((each.seconds / each.frames for each in viewings if each.frames), default=0.0)
    for index in range(INTERVALS):
        first, last = index * end / INTERVALS, (index + 1) * end / INTERVALS
        delays = [delay for when, delay in late if first <= when < last]
        if delays:
            on_time = sum(delay <= period for delay in delays) / len(delays)
            points.append(((first + last) / 2, 100 * on_time))
    x = Axis(0, max(end, 1e-3), LEFT, WIDTH - RIGHT)
    panels.append(Panel("frames on time", "s", "% of frames", x, _percent_axis()))
    panels[-1].curve(points)
    return svg(panels, 2)


def _percent_axis() -> Axis:
    return Axis(0, 105, HEIGHT - BOTTOM, TOP)
