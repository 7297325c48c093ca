"""`glassworld bench`: how fast this machine runs a world, and how fast it could."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from glassworld.engine.checkpoint.options import LoadOptions
from glassworld.load_flags import with_load_flags

app = typer.Typer(no_args_is_help=True, help="Measure speed, latency and memory.")

_Json = Annotated[Path | None, typer.Option("--json", help="Also write the figures here.")]


@app.command()
@with_load_flags("device", "dtype")
def ceilings(load: LoadOptions, json_file: _Json = None) -> None:
    """Measure what this machine can do at best, and store it for reports and benchmarks."""
    from rich.console import Console

    from glassworld.bench.peak_rates import measure, store, store_folder
    from glassworld.engine.runtime.device import pick_device
    from glassworld.files import writable_file

    store_folder()
    if json_file is not None:
        writable_file(json_file)
    console = Console()
    with console.status("products, copies, convolutions"):
        device = str(pick_device(load.device))
        measured = measure(device, load.dtype)
    path = store(device, measured)
    console.print(
        f"{device}: products {measured['matmul_gflops']:.0f} GFLOP/s in {measured['dtype']}, "
        f"convolutions {measured['conv_gflops']:.0f} in {measured['conv_dtype']}, "
        f"copies {measured['copy_gbps']:.1f} GB/s"
    )
    console.print(f"stored in {path}")
    _write(json_file, measured)


@app.command()
@with_load_flags()
def run(
    load: LoadOptions,
    blocks: Annotated[int, typer.Option(help="Blocks to measure once the window is full.")] = 60,
    plots: Annotated[
        Path | None, typer.Option(help="Draw scaling.svg and roofline.svg into this folder.")
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Hold it against the committed baseline.")
    ] = False,
    save_baseline: Annotated[
        bool, typer.Option("--save-baseline", help="Make it the baseline to commit.")
    ] = False,
    json_file: _Json = None,
) -> None:
    """Frames per second with decoding, beside an eager baseline; start, stages, sessions, memory.

    The embedded world by default. With --compare the exit code is 1 if it became slower.
    """
    from rich.console import Console

    from glassworld.bench import regression
    from glassworld.bench.tables import Order, full_benchmark, print_comparison, print_table
    from glassworld.files import writable_file, writable_folder

    order = Order(
        load.keywords("accelerate", "tiny_decoder"), load.accelerate, load.tiny_decoder, blocks
    )
    before = regression.read() if compare else None
    if json_file is not None:
        writable_file(json_file)
    folder = None if plots is None else writable_folder(plots)
    console = Console()
    with console.status("measuring: this takes a few minutes") as status:
        figures = full_benchmark(order, status.update, folder)
    print_table(figures, console)
    _write(json_file, figures)
    if save_baseline:
        regression.save(figures)
        console.print(f"baseline written to {regression.BASELINE}")
    if before is not None:
        rows = regression.compare(figures, before)
        print_comparison(rows, before, console)
        if any(row.fell for row in rows):
            raise typer.Exit(1)


def _write(path: Path | None, figures: dict[str, Any]) -> None:
    if path is not None:
        from glassworld.files import replacing

        with replacing(path) as partial:
            partial.write_text(json.dumps(figures, indent=1))
