"""`glassworld bench`: how fast this machine runs a world, and how fast it could."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(no_args_is_help=True, help="Measure speed, latency and memory.")

_Json = Annotated[Path | None, typer.Option("--json", help="Also write the figures here.")]
_Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")]
_Dtype = Annotated[str | None, typer.Option(help="float32, mixed or bfloat16.")]


@app.command()
def ceilings(device: _Device = "cpu", dtype: _Dtype = None, json_file: _Json = None) -> None:
    """Measure what this machine can do at best, and store it for reports and benchmarks."""
    from rich.console import Console

    from glassworld.bench.peak_rates import measure, store, store_folder
    from glassworld.files import writable_file

    store_folder()
    if json_file is not None:
        writable_file(json_file)
    console = Console()
    with console.status("products, copies, convolutions"):
        measured = measure(device, dtype)
    path = store(device, measured)
    console.print(
        f"{device}: products {measured['matmul_gflops']:.0f} GFLOP/s in {measured['dtype']}, "
        f"convolutions {measured['conv_gflops']:.0f} in {measured['conv_dtype']}, "
        f"copies {measured['copy_gbps']:.1f} GB/s"
    )
    console.print(f"stored in {path}")
    _write(json_file, measured)


@app.command()
def run(
    blocks: Annotated[int, typer.Option(help="Blocks to measure once the window is full.")] = 60,
    config_path: Annotated[Path | None, typer.Option(help="A world's inference YAML.")] = None,
    checkpoint_path: Annotated[Path | None, typer.Option(help="Its transformer.")] = None,
    pretrained_model_path: Annotated[str | None, typer.Option(help="Its model folder.")] = None,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Untrained weights, full size by default.")
    ] = False,
    device: _Device = "cpu",
    dtype: _Dtype = None,
    vae_compile_mode: Annotated[str, typer.Option(help="auto, force or none.")] = "none",
    accelerate: Annotated[
        str,
        typer.Option(
            help="Of kernels, graphs, attention, convolutions, layers, int8, float8; joined by "
            "commas."
        ),
    ] = "",
    tiny_decoder: Annotated[
        Path | None, typer.Option(help="Decode by these TAEHV weights (taew2_1).")
    ] = None,
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
    from glassworld.engine.acceleration.parts import split_parts
    from glassworld.files import writable_file, writable_folder

    arguments: dict[str, Any] = {
        "config_path": config_path and str(config_path),
        "checkpoint_path": checkpoint_path and str(checkpoint_path),
        "pretrained_model_path": pretrained_model_path,
        "random_weights": random_weights,
        "device": device,
        "dtype": dtype,
        "vae_compile_mode": vae_compile_mode,
    }
    order = Order(arguments, split_parts(accelerate), tiny_decoder, blocks)
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
