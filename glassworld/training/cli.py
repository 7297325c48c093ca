"""The commands `glassworld train` and `glassworld eval`. Heavy imports wait until one runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from glassworld.engine.checkpoint.options import LoadOptions
from glassworld.errors import InputError
from glassworld.load_flags import with_load_flags

HELD_OUT_SEED, HELD_OUT_EPISODES, HELD_OUT_FRAMES = 1000, 32, 121

SOURCES = "`maze`, `drive`, `run`, or `gymnasium:ID` with `--mapping`"
"""For help texts: the registry of sources is imported when a command runs."""

INTERRUPTED = 130
"""Exit code after Ctrl-C."""

_Batch = Annotated[
    int,
    typer.Option(
        min=0,
        metavar="N",
        help="Batch size. 0 uses the preset (tuned for CPUs); use 256 on a GPU.",
    ),
]
_Source = Annotated[str, typer.Option(metavar="NAME", help=f"What to learn from: {SOURCES}.")]
_Mapping = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="With `gymnasium:ID`: a .yaml or .py file from keys to the environment's actions.",
    ),
]
_Strip = Annotated[Path | None, typer.Option(help="Write an image: rows of truth and model.")]
_Video = Annotated[
    Path | None, typer.Option(help="Write an MP4: truth on the left, model on the right.")
]

train_app = typer.Typer(add_completion=False, rich_markup_mode="markdown")
eval_app = typer.Typer(add_completion=False, rich_markup_mode="markdown")


def _with_mapping(source: str, mapping: Path | None) -> str:
    """Return the name of a source with the path of its mapping."""
    if mapping is None:
        return source
    if not source.startswith("gymnasium:"):
        raise InputError(f"mapping: has no effect with --source {source}; use gymnasium:ID")
    return f"{source}@{mapping}"


def _check_recordings(recordings: Path | None, source: str, mode: str | None) -> None:
    """Raise `InputError` for flags that recordings leave without effect, or that need them."""
    if recordings is None and mode is not None:
        raise InputError("mode: has no effect without --recordings; the source has its own")
    if recordings is not None and source != "maze":
        raise InputError("source: has no effect with --recordings; give one of them")


@train_app.command()
@with_load_flags("world", "variant", "device", world="--start")
def train(
    load: LoadOptions,
    preset: Annotated[
        str,
        typer.Option(
            help="`smoke` tries every stage in a minute; `laptop` trains a world, `compact` a "
            "smaller one on a slow CPU."
        ),
    ] = "laptop",
    source: _Source = "maze",
    mapping: _Mapping = None,
    recordings: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Learn from videos, each beside its actions, not from a source."
        ),
    ] = None,
    mode: Annotated[
        str | None, typer.Option(help="Mode of the recordings, where their actions fit several.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder for episodes, checkpoints, curves and the world. Default: runs/SOURCE."
        ),
    ] = None,
    batch: _Batch = 0,
    gradient_checkpointing: Annotated[
        bool,
        typer.Option(
            "--gradient-checkpointing",
            help="Save memory in the transformer; steps take a third longer.",
        ),
    ] = False,
    minutes: Annotated[
        float | None,
        typer.Option(
            metavar="N",
            help="Take this long in all, and end with a world. Default: the preset's lengths.",
        ),
    ] = None,
    threads: Annotated[
        int, typer.Option(min=0, metavar="N", help="CPU threads. 0 lets torch choose.")
    ] = 0,
) -> None:
    """Train a world: collect episodes, train the VAE and the transformer, export.

    You can interrupt it with Ctrl-C at any time (exit code 130). The same command continues. With
    `--world` it starts from the weights of that world.

    Examples: `glassworld train --source drive`, `glassworld train --recordings videos`,
    `glassworld train --source gymnasium:CarRacing-v3 --mapping car_racing.yaml`
    """
    from dataclasses import replace

    import torch

    from glassworld.training.pipeline import train_world
    from glassworld.training.recipes import RunFolders, preset_recipe
    from glassworld.training.sources.registry import file_stem

    source = _with_mapping(source, mapping)
    _check_recordings(recordings, source, mode)
    name = file_stem(source) if recordings is None else recordings.resolve().name
    folder = output or Path("runs") / name
    recipe = replace(preset_recipe(preset), source=source, recordings=recordings, mode=mode)
    dit = replace(recipe.dit, gradient_checkpointing=gradient_checkpointing)
    if batch:
        dit = replace(dit, batch_size=batch, first_blocks=max(batch, dit.first_blocks))
    if threads:
        torch.set_num_threads(threads)
    start = None if load.world is None and load.variant is None else load
    try:
        train_world(replace(recipe, dit=dit), RunFolders(folder), start, load.device, minutes)
    except KeyboardInterrupt:
        typer.echo(
            f"interrupted: finished stages and the last checkpoint in {folder} are kept; "
            "the same command continues",
            err=True,
        )
        raise typer.Exit(INTERRUPTED) from None
    typer.echo(f"The world is in {folder / 'world'}.")


@eval_app.command("evaluate")
@with_load_flags()
def evaluate_command(
    load: LoadOptions,
    source: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What to compare with. Default: by the world's mode."),
    ] = None,
    mapping: _Mapping = None,
    json: Annotated[Path | None, typer.Option(help="Write the scores to this file.")] = None,
    strip: _Strip = None,
    video: _Video = None,
    starts: Annotated[int, typer.Option(min=1, help="Number of held-out start images.")] = 24,
    minutes: Annotated[
        int, typer.Option(min=1, help="Number of one-minute sessions that measure drift.")
    ] = 4,
) -> None:
    """Evaluate a world against the source it was trained on.

    Examples: `glassworld eval --json scores.json --video truth-and-model.mp4`
    """
    import msgspec
    import numpy as np
    from rich.console import Console

    from glassworld.engine.checkpoint.load import load_from
    from glassworld.engine.media.video import write_video
    from glassworld.files import replacing, writable_file
    from glassworld.training.data.collect import record_episodes
    from glassworld.training.eval.evaluate import (
        EvalConfig,
        check_comparable,
        evaluate_world,
        side_by_side,
    )
    from glassworld.training.eval.samples import comparison_strip
    from glassworld.training.eval.tables import score_tables
    from glassworld.training.sources.registry import SOURCE_OF_MODE, open_source

    world = load_from(load)
    source = _with_mapping(source or SOURCE_OF_MODE[world.spec.mode], mapping)
    opened = open_source(source)
    check_comparable(world.spec, opened)
    for path in filter(None, (json, strip, video)):
        writable_file(path)
    config = EvalConfig(starts=starts, drift_starts=minutes)
    held_out = record_episodes(
        source, HELD_OUT_EPISODES, HELD_OUT_FRAMES, (HELD_OUT_SEED, 0)
    ).frames
    scores: dict[str, dict[str, object]] = {}
    with opened:
        for name, score in evaluate_world(world, opened, config, held_out):
            scores[name] = score
            if json is not None:  # Written after each measurement, in case of an interruption.
                with replacing(json) as path:
                    path.write_bytes(msgspec.json.format(msgspec.json.encode(scores)) + b"\n")
        if strip is not None or video is not None:
            pairs = list(side_by_side(world, opened, config))
    if strip is not None:
        with replacing(strip) as path:
            comparison_strip(pairs).save(path)
    if video is not None:
        frames = np.concatenate([np.concatenate(pair, axis=2) for pair in pairs])
        write_video(video, frames, world.spec.frame_rate)
    console = Console()
    for table in score_tables(scores):
        console.print(table)
