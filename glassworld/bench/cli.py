"""`glassworld bench`: how fast this machine runs a world, and how fast it could."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from glassworld.engine.checkpoint.options import LoadOptions
from glassworld.load_flags import with_load_flags

app = typer.Typer(no_args_is_help=True, help="Measure speed, latency and memory.")

INTERRUPTED = 130
"""Exit code after Ctrl-C."""

_Json = Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")]


@app.command("ceilings", hidden=True)
@app.command("peak-rates")
@with_load_flags("device", "dtype")
def peak_rates(load: LoadOptions, json_file: _Json = None) -> None:
    """Measure the peak rates of this machine, and store them for reports and benchmarks.

    They are stored for the number of threads they were measured with. Measure on an idle machine.
    """
    from rich.console import Console

    from glassworld.bench.peak_rates import (
        measure_peak_rates,
        peak_rates_folder,
        store_peak_rates,
    )
    from glassworld.bench.tables import measurement_line, peak_rates_line
    from glassworld.engine.runtime.device import pick_device
    from glassworld.files import replacing, writable_file
    from glassworld.progress import show_activity

    peak_rates_folder()
    if json_file is not None:
        writable_file(json_file)
    console, device = Console(), str(pick_device(load.device))
    with show_activity(console, "measuring matmul, copy and convolution"):
        rates = measure_peak_rates(device, load.dtype)
    path = store_peak_rates(device, rates)
    console.print(f"{device}: {peak_rates_line(rates)}")
    console.print(measurement_line(rates))
    console.print(f"stored in {path}")
    if json_file is not None:
        with replacing(json_file) as partial:
            partial.write_text(json.dumps(rates, indent=1), encoding="utf-8")


@app.command("run")
@with_load_flags()
def run_benchmark(
    load: LoadOptions,
    blocks: Annotated[
        int, typer.Option(help="Blocks to measure; fewer where blocks are slow, unless --full.")
    ] = 60,
    minutes: Annotated[
        float, typer.Option(min=0, help="Time budget. Sections after it are skipped.")
    ] = 3.0,
    full: Annotated[
        bool,
        typer.Option(
            "--full", help="Measure everything, however long: all blocks, compiling, scaling."
        ),
    ] = False,
    plots: Annotated[
        Path | None,
        typer.Option(help="Also measure scaling; draw scaling.svg and roofline.svg here."),
    ] = None,
    busy: Annotated[
        bool,
        typer.Option(
            "--busy",
            help="Also compare numbers of threads, alone and beside a busy process: four minutes.",
        ),
    ] = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="Compare with the committed baseline.")
    ] = False,
    save_baseline: Annotated[
        bool, typer.Option("--save-baseline", help="Make this run the baseline to commit.")
    ] = False,
    json_file: _Json = None,
) -> None:
    """Measure frames per second beside an eager baseline; start, latency, sessions, memory.

    Measures the default world, or with --compare the one of the committed baseline. Prints each
    section when it is finished, and writes it to --json. Ctrl-C keeps the finished sections (exit
    code 130). With --compare the exit code is 1 if the program became slower.
    """
    from glassworld.bench import regression
    from glassworld.bench.benchmark import BenchmarkOptions
    from glassworld.files import writable_file, writable_folder

    baseline = regression.read_baseline() if compare else None
    if baseline is not None and load.world is None:
        load = replace(load, world=baseline["world"])
    options = BenchmarkOptions(
        load,
        blocks,
        full=full,
        scaling=plots is not None,
        busy=busy,
        baseline=baseline,
    )
    if json_file is not None:
        writable_file(json_file)
    folder = None if plots is None else writable_folder(plots)
    seconds = None if full else 60 * minutes
    _benchmark(options, seconds, json_file, folder, save_baseline)


def _benchmark(
    options: Any, seconds: float | None, json_file: Path | None, plots: Path | None, save: bool
) -> None:
    """Run the sections, print them, and compare them with the baseline."""
    from rich.console import Console

    from glassworld.bench import regression
    from glassworld.bench.benchmark import Benchmark, write_plots
    from glassworld.bench.section_runner import SectionRunner, TimeBudget
    from glassworld.bench.tables import print_benchmark, print_comparison

    console, budget = Console(), TimeBudget(seconds)
    runner = SectionRunner(console, budget, json_file)
    with tempfile.TemporaryDirectory() as folder:
        runner.run(Benchmark(options, budget, Path(folder), runner.report).sections())
    print_benchmark(runner.figures, console)
    if plots is not None:
        write_plots(runner.figures, plots)
    if runner.interrupted:
        raise typer.Exit(INTERRUPTED)
    if save:
        regression.save_baseline(runner.figures)
        console.print(f"baseline written to {regression.BASELINE}")
    if options.baseline is not None:
        rows = regression.compare_with_baseline(runner.figures, options.baseline)
        print_comparison(rows, options.baseline, console)
        if any(row.dropped for row in rows):
            raise typer.Exit(1)


@app.command("gpu")
def check_gpu(
    json_file: Annotated[
        Path, typer.Option("--json", help="Write the figures to this file.")
    ] = Path("gpu_check.json"),
    blocks: Annotated[int, typer.Option(min=1, help="Blocks of each speed measurement.")] = 20,
    minutes: Annotated[
        float, typer.Option(min=0, help="Time budget. Sections after it are skipped.")
    ] = 5.5,
    only: Annotated[str, typer.Option(help="Sections to run, joined by commas.")] = "",
    rehearse: Annotated[
        bool, typer.Option("--rehearse", help="Run all of it with a tiny world on the CPU.")
    ] = False,
    section: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Measure everything about a GPU: correctness, then speed and memory at the released size.

    Uses untrained weights, downloads nothing, and ends after --minutes. Each section is a process
    of its own: one that fails is recorded with its error, and the others go on. Sections, in their
    order: machine, correctness, matmul_variants, accelerations, cold_starts, sessions,
    decoder_variants, attention_variants, peak_rates, roofline, convolution_variants, steady_state.
    """
    from glassworld.bench.gpu.check import GpuCheckOptions, measure_section, run_gpu_check

    options = GpuCheckOptions(json_file, blocks, minutes, only, rehearse)
    if section:
        measure_section(section, options)
    elif not run_gpu_check(options):
        raise typer.Exit(INTERRUPTED)


@app.command("play")
@with_load_flags("world", "device")
def check_play(
    load: LoadOptions,
    seconds: Annotated[float, typer.Option(min=1, help="Seconds of play in the browser.")] = 120,
    stuck: Annotated[
        float, typer.Option(min=1, help="Seconds beside clients that do not read.")
    ] = 30,
    connects: Annotated[int, typer.Option(min=1, help="Connections that come and go.")] = 200,
    json_file: _Json = None,
) -> None:
    """Check that live play keeps its promises on this machine, in a real browser.

    Starts a server and measures it from outside, for about five minutes on a machine
    that does nothing else (Linux). Needs the extras play and dev, and Chromium. The exit code
    is 1 if a promise is broken.
    """
    from glassworld.bench.play.check import PlayCheckOptions, run_play_check

    options = PlayCheckOptions(seconds, stuck, connects, load.world, load.device, json_file)
    if not run_play_check(options):
        raise typer.Exit(1)


@app.command("attack")
@with_load_flags("world", "device")
def attack_play(
    load: LoadOptions,
    messages: Annotated[int, typer.Option(min=1, help="Malformed messages to send.")] = 100_000,
    seconds: Annotated[
        float, typer.Option(min=1, help="Stop sending after this many seconds.")
    ] = 120,
    json_file: _Json = None,
) -> None:
    """Attack a live play server on this machine, and check that it stays quick and clean.

    Starts a server and sends it malformed messages, pings, fragments, requests that do not end,
    and clients that read nothing (Linux). Connects to no other machine. The exit code is 1 if a
    promise is broken.
    """
    from glassworld.bench.play.attack import AttackOptions, run_attack

    options = AttackOptions(messages, seconds, load.world, load.device, json_file)
    if not run_attack(options):
        raise typer.Exit(1)


@app.command("flight-recorder")
@with_load_flags()
def flight_recorder_cost(
    load: LoadOptions,
    rounds: Annotated[int, typer.Option(min=1, help="Blocks to measure of each kind.")] = 60,
    json_file: _Json = None,
) -> None:
    """Measure what the flight recorder of live play costs: blocks with and without it, in turn."""
    from glassworld.bench.play.flight_recorder import measure_flight_recorder

    measure_flight_recorder(load, rounds, json_file)


@app.command("load")
@with_load_flags("world", "device")
def load_test(
    load: LoadOptions,
    players: Annotated[int, typer.Option(min=1, help="Viewers at once.")] = 4,
    minutes: Annotated[float, typer.Option(min=0.01, help="Minutes to measure.")] = 1.0,
    url: Annotated[
        str | None,
        typer.Option(help="The page of a running play or serve. Default: start play here."),
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the figures as SVG here.")] = None,
    json_file: _Json = None,
) -> None:
    """Let simulated viewers play, and measure what each of them gets.

    A viewer presses random keys and shows frames at the content rate from a buffer of 0.1 s.
    Reports the share of frames on time, stalls, the time from an input to its first frame, and
    the memory of a session. Without --url it starts `glassworld play` (Linux): four seats.
    """
    from glassworld.bench.load.run import LoadTestOptions, run_load_test

    run_load_test(LoadTestOptions(players, minutes, url, load.world, load.device, json_file, plot))


@app.command("plan")
@with_load_flags()
def plan_capacity(
    load: LoadOptions,
    players: Annotated[
        str, typer.Option(help="Concurrent players to plan for, joined by commas.")
    ] = "1000,100000,1000000",
    target: Annotated[float, typer.Option(help="Share of frames on time.")] = 0.99,
    refused: Annotated[
        float, typer.Option(help="Share of the time in which all seats may be taken.")
    ] = 0.01,
    block_ms: Annotated[
        str | None,
        typer.Option(
            metavar="N:MS,...",
            help="Block times by sessions, such as 1:132,2:201. Default: measure here.",
        ),
    ] = None,
    price: Annotated[
        float | None, typer.Option("--device-hour", help="Price of a device for an hour.")
    ] = None,
    check: Annotated[
        Path | None, typer.Option(help="Compare with this JSON of `bench load`.")
    ] = None,
    json_file: _Json = None,
) -> None:
    """Plan a fleet: players per device, and devices for many players.

    Simulates a server with the pacing of live play and the block times given or measured here.
    Needs the extras play and bench.
    """
    from glassworld.bench.plan.run import PlanOptions, read_players, run_plan

    numbers = read_players(players)
    options = PlanOptions(numbers, target, refused, block_ms, price, check, json_file, load)
    run_plan(options)
