"""`glassworld train` and `glassworld eval`. Heavy imports wait until a command runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from glassworld.engine.checkpoint.options import LoadOptions
from glassworld.load_flags import with_load_flags

HELD_OUT_SEED, HELD_OUT_EPISODES, HELD_OUT_FRAMES = 1000, 32, 121

_Batch = Annotated[
    int,
    typer.Option(
        min=0, metavar="N", help="Lessons a step; 0: the preset's, for a CPU. A GPU wants 256."
    ),
]
_Strip = Annotated[Path | None, typer.Option(help="Write a picture here: rows of truth and model.")]
_Video = Annotated[Path | None, typer.Option(help="Write an MP4 here: truth left, model right.")]

train_app = typer.Typer(add_completion=False, rich_markup_mode="markdown")
eval_app = typer.Typer(add_completion=False, rich_markup_mode="markdown")


@train_app.command()
@with_load_flags("world", "variant", "device", world="--start")
def train(
    load: LoadOptions,
    preset: Annotated[
        str,
        typer.Option(help="`smoke` tries every stage in a minute; `laptop` makes the world."),
    ] = "laptop",
    output: Annotated[
        Path, typer.Option(help="Where play, checkpoints, curves and the world go.")
    ] = Path("runs/maze"),
    batch: _Batch = 0,
    gradient_checkpointing: Annotated[
        bool,
        typer.Option(
            "--gradient-checkpointing", help="Less memory for the transformer, a third more time."
        ),
    ] = False,
    threads: Annotated[
        int, typer.Option(min=0, metavar="N", help="CPU threads; 0 leaves the choice to torch.")
    ] = 0,
) -> None:
    """Make a world: play the simulator, train the VAE, train the transformer, export.

    Interrupt it when you like: the same command goes on where it was.

    Examples: `glassworld train --preset smoke`, `glassworld train --output runs/mine`
    """
    from dataclasses import replace

    import torch

    from glassworld.training.pipeline import train_world
    from glassworld.training.recipes import Folders
    from glassworld.training.recipes import preset as look_up

    chosen = look_up(preset)
    recipe = replace(chosen.dit, gradient_checkpointing=gradient_checkpointing)
    if batch:
        recipe = replace(recipe, batch=batch, openings=max(batch, recipe.openings))
    if threads:
        torch.set_num_threads(threads)
    start = None if load.world is None else Path(load.world)
    train_world(replace(chosen, dit=recipe), Folders(output), start, load.device)
    typer.echo(f"The world is in {output / 'world'}.")


@eval_app.command()
@with_load_flags()
def evaluate(
    load: LoadOptions,
    json: Annotated[Path | None, typer.Option(help="Write the scores here.")] = None,
    strip: _Strip = None,
    video: _Video = None,
    starts: Annotated[int, typer.Option(min=1, help="Held-out starting pictures.")] = 24,
    minutes: Annotated[int, typer.Option(min=1, help="Runs of a minute for drift.")] = 4,
) -> None:
    """Measure a world against the simulator it learned from.

    Examples: `glassworld eval --json scores.json --video truth-and-model.mp4`
    """
    import msgspec
    import numpy as np
    from rich.console import Console

    from glassworld.engine.checkpoint.load import load_from
    from glassworld.engine.media.video import write_video
    from glassworld.files import replacing, writable_file
    from glassworld.training.data.collect import play
    from glassworld.training.eval import evaluate as evaluation
    from glassworld.training.eval.tables import tables

    loaded = load_from(load)
    for path in filter(None, (json, strip, video)):
        writable_file(path)
    plan = evaluation.Plan(starts=starts, drift_starts=minutes)
    held_out = play(HELD_OUT_EPISODES, HELD_OUT_FRAMES, (HELD_OUT_SEED, 0)).frames
    scores: dict[str, dict[str, object]] = {}
    for name, score in evaluation.evaluate(loaded, plan, held_out):
        scores[name] = score
        if json is not None:  # what is measured is kept if the rest is interrupted
            with replacing(json) as path:
                path.write_bytes(msgspec.json.format(msgspec.json.encode(scores)) + b"\n")
    if strip is not None or video is not None:
        pairs = list(evaluation.side_by_side(loaded, plan))
        if strip is not None:
            with replacing(strip) as path:
                evaluation.strip(pairs).save(path)
        if video is not None:
            write_video(video, np.concatenate(pairs), loaded.spec.frame_rate)
    console = Console()
    for table in tables(scores):
        console.print(table)
