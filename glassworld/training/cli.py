"""The commands `glassworld train` and `glassworld eval`. Heavy imports wait until one runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glassworld.engine.checkpoint.options import LoadOptions
from glassworld.errors import InputError
from glassworld.load_flags import with_load_flags

if TYPE_CHECKING:
    from glassworld.engine.world import World
    from glassworld.training.eval.drift import OnSession
    from glassworld.training.eval.sessions import EvalConfig
    from glassworld.training.recipes import TrainingRecipe
    from glassworld.training.sources.source import Frame, Source

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


def _own_source(load: LoadOptions, mapping: Path | None) -> str:
    """Return the name of the source that a world learned from."""
    from glassworld.engine.checkpoint.locate import locate_world

    source = locate_world(load).source
    if not source:
        raise InputError("this world does not say what it learned from; name it with --source")
    return source if mapping is None else _with_mapping(source.partition("@")[0], mapping)


def _check_recordings(recordings: Path | None, source: str, mode: str | None) -> None:
    """Raise `InputError` for flags that recordings leave without effect, or that need them."""
    if recordings is None and mode is not None:
        raise InputError(
            "mode: has no effect without --recordings; the source has its own; leave it out"
        )
    if recordings is not None and source != "maze":
        raise InputError("source: has no effect with --recordings; give one of them")


@train_app.command()
@with_load_flags("world", "variant", "device", world="--from --start")
def train(
    load: LoadOptions,
    preset: Annotated[
        str,
        typer.Option(
            help="`smoke` tries every stage in two minutes; `laptop` trains a world, `compact` a "
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
    lora: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="RANK",
            help="With `--from`: train updates of this rank beside the transformer's weights, and "
            "merge them. 0 trains all weights.",
        ),
    ] = 0,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder for episodes, checkpoints, curves and the world. Default: runs/SOURCE, or "
            "runs/SOURCE-smoke with that preset."
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
    compiled: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Compile the transformer's step: faster steps on a GPU after some minutes.",
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

    You can interrupt it with Ctrl-C at any time (exit code 130; 143 by SIGTERM). The same command
    continues. With `--from` it fine-tunes an embedded or a released world, or one that you trained.

    Examples: `glassworld train --source drive`, `glassworld train --recordings videos`,
    `glassworld train --recordings videos --from Skywork/Matrix-Game-2.0 --lora 16`,
    `glassworld train --source gymnasium:CarRacing-v3 --mapping car_racing.yaml`
    """
    from glassworld.training.sources.registry import file_stem

    source = _with_mapping(source, mapping)
    _check_recordings(recordings, source, mode)
    start = None if load.world is None and load.variant is None else load
    if lora and start is None:
        raise InputError("lora: needs a world to start from; add --from WORLD")
    name = file_stem(source) if recordings is None else recordings.resolve().name
    folder = output or Path("runs") / (f"{name}-smoke" if preset == "smoke" else name)
    recipe = _recipe(preset, batch, source=source, recordings=recordings, mode=mode, lora=lora)
    if compiled and gradient_checkpointing:
        raise InputError("compile: has no effect with --gradient-checkpointing; give one of them")
    dit = replace(recipe.dit, gradient_checkpointing=gradient_checkpointing, compiled=compiled)
    recipe = replace(recipe, dit=dit)
    _train(recipe, folder, start, load.device, minutes, threads)


def _recipe(preset: str, batch: int, **data: Any) -> TrainingRecipe:
    """Return a preset's recipe for these data, with another batch size unless it is 0."""
    from glassworld.training.recipes import preset_recipe

    recipe = replace(preset_recipe(preset), **data)
    if not batch:
        return recipe
    first_blocks = max(batch, recipe.dit.first_blocks)
    return replace(recipe, dit=replace(recipe.dit, batch_size=batch, first_blocks=first_blocks))


def _train(
    recipe: TrainingRecipe,
    folder: Path,
    start: LoadOptions | None,
    device: str,
    minutes: float | None,
    threads: int,
) -> None:
    """Train a world in a folder; Ctrl-C and SIGTERM end with a message of what is kept."""
    import torch

    from glassworld.training.pipeline import train_world
    from glassworld.training.recipes import RunFolders

    if threads:
        torch.set_num_threads(threads)
    try:
        train_world(recipe, RunFolders(folder), start, device, minutes)
    except (KeyboardInterrupt, SystemExit) as end:
        typer.echo(
            f"interrupted: finished stages and the last checkpoint in {folder} are kept; "
            "the same command continues",
            err=True,
        )
        if isinstance(end, SystemExit):
            raise
        raise typer.Exit(INTERRUPTED) from None
    typer.echo(f"The world is in {folder / 'world'}.")


@eval_app.command("evaluate")
@with_load_flags()
def evaluate_command(
    load: LoadOptions,
    source: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What to compare with. Default: what it learned from."),
    ] = None,
    mapping: _Mapping = None,
    json: Annotated[Path | None, typer.Option(help="Write the scores to this file.")] = None,
    strip: _Strip = None,
    video: _Video = None,
    minute_video: Annotated[
        Path | None,
        typer.Option(help="Write an MP4 of a minute of play and one at rest, truth on the left."),
    ] = None,
    minute_strip: Annotated[
        Path | None, typer.Option(help="Write an image of the same minutes.")
    ] = None,
    starts: Annotated[int, typer.Option(min=1, help="Number of held-out start images.")] = 24,
    minutes: Annotated[
        int, typer.Option(min=1, help="Number of one-minute sessions that measure drift.")
    ] = 4,
) -> None:
    """Evaluate a world against the source it was trained on.

    Examples: `glassworld eval --json scores.json --video truth-and-model.mp4`
    """
    from rich.console import Console

    from glassworld.engine.checkpoint.load import load_from
    from glassworld.files import writable_file
    from glassworld.training.eval.evaluate import check_comparable, side_by_side
    from glassworld.training.eval.sessions import EvalConfig
    from glassworld.training.eval.tables import score_tables
    from glassworld.training.sources.registry import open_source

    source = _with_mapping(source, mapping) if source else _own_source(load, mapping)
    world = load_from(load)
    config = EvalConfig(starts=starts, drift_starts=minutes)
    first_sessions: dict[str, tuple[Frame, Frame]] = {}  # of each kind of long session

    def keep(kind: str, truth: Frame, generated: Frame) -> None:
        first_sessions.setdefault(kind, (truth, generated))

    with open_source(source) as opened:
        check_comparable(world.spec, opened)
        frames = world.spec.frames_per_block
        opened.format = replace(opened.format, frames_per_block=frames)
        for path in filter(None, (json, strip, video, minute_strip, minute_video)):
            writable_file(path)
        scores = _score(world, source, opened, config, json, keep)
        pairs = list(side_by_side(world, opened, config)) if strip or video else []
    _show(pairs, strip, video, world.spec.frame_rate)
    _show(list(first_sessions.values()), minute_strip, minute_video, world.spec.frame_rate)
    console = Console()
    for table in score_tables(scores):
        console.print(table)


def _score(
    world: World,
    name: str,
    source: Source,
    config: EvalConfig,
    json: Path | None,
    on_session: OnSession,
) -> dict[str, dict[str, object]]:
    """Measure everything; write the scores after each measurement, in case of an interruption."""
    import msgspec

    from glassworld.files import replacing
    from glassworld.training.data.collect import record_episodes
    from glassworld.training.eval.evaluate import evaluate_world

    held_out = record_episodes(name, HELD_OUT_EPISODES, HELD_OUT_FRAMES, (HELD_OUT_SEED, 0)).frames
    scores: dict[str, dict[str, object]] = {}
    for measurement, score in evaluate_world(world, source, config, held_out, on_session):
        scores[measurement] = score
        if json is not None:
            with replacing(json) as path:
                path.write_bytes(msgspec.json.format(msgspec.json.encode(scores)) + b"\n")
    return scores


def _show(
    pairs: list[tuple[Frame, Frame]], strip: Path | None, video: Path | None, frame_rate: int
) -> None:
    """Write the strip and the video of frames of truth and model, those that were asked for."""
    import numpy as np

    from glassworld.engine.media.video import write_video
    from glassworld.files import replacing
    from glassworld.training.eval.samples import comparison_strip

    if strip is not None:
        with replacing(strip) as path:
            comparison_strip(pairs).save(path)
    if video is not None:
        frames = np.concatenate([np.concatenate(pair, axis=2) for pair in pairs])
        write_video(video, frames, frame_rate)
