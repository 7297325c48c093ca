"""The command line. Heavy modules are imported only when a command runs."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from glassworld import __version__
from glassworld.engine.checkpoint.options import LoadOptions
from glassworld.errors import InputError
from glassworld.load_flags import with_load_flags

COMMANDS = {
    "play": ("play", "app", "Play a world in your browser and see the time of every stage."),
    "serve": ("serve", "app", "Serve many players on several workers or a Ray cluster."),
    "trace": (
        "trace",
        "app",
        "Analyze a torch trace: where the time went and what to change.",
    ),
    "bench": (
        "bench",
        "app",
        "Measure speed, latency, memory and accuracy on this machine.",
    ),
    "batch": ("batch", "app", "Turn a list of jobs into videos."),
    "train": ("training", "train_app", "Train a world."),
    "eval": ("training", "eval_app", "Evaluate a world against the simulator it was trained on."),
}
"""Each command's folder, the name of its app in that folder's `cli`, and its line of help."""

UsageError: Any = typer.BadParameter.__base__  # typer keeps click out of its public names

COMPLETION = ("install_completion", "show_completion")  # options of the root command alone

EITHER_SPELLING = {"token_normalize_func": lambda name: name.replace("_", "-")}
"""Options take both spellings: --enable_profile is --enable-profile, in every command."""

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"], **EITHER_SPELLING},
    help="Run Matrix-Game 2.0 world models and see where every millisecond goes.",
    epilog="**Start here:** `glassworld generate --enable-profile`, then open outputs/demo.mp4.",
)

RUN, OUTPUT, PROFILING = "Run", "Output", "Profiling"


def _option(
    name: str, text: str, panel: str, metavar: str | None = None, least: int | None = None
) -> Any:
    return typer.Option(f"--{name}", help=text, rich_help_panel=panel, metavar=metavar, min=least)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


_Version = Annotated[
    bool,
    typer.Option(
        "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
    ),
]


@app.callback()
def _root(version: _Version = False) -> None:
    pass


EXAMPLES = """Examples:

- `{command}` runs the embedded world

- `{command} --actions "w*24 w+left*24" --enable{_}profile` drives it and reports where the
  time went

- `{command} --world Skywork/Matrix-Game-2.0 --variant gta_drive --img{_}path street.png
  --device cuda` runs a released checkpoint
"""


def _examples(command: str, joint: str) -> str:
    return EXAMPLES.format(command=command, _=joint)


@app.command(epilog=_examples("glassworld generate", "-"))
@with_load_flags()
def generate(
    load: LoadOptions,
    img_path: Annotated[
        Path | None, _option("img-path", "The start image. Default: a sample.", RUN)
    ] = None,
    actions: Annotated[
        str | None,
        _option(
            "actions",
            "A .csv, .tsv, .json or .txt file, or segments such as `w*12 w+left*24`. "
            "Default: the benchmark's random actions.",
            RUN,
        ),
    ] = None,
    num_output_frames: Annotated[
        int | None,
        _option(
            "num-output-frames",
            "Latent frames to generate: n give 1+4(n-1) pixel frames. Default: as many as your "
            "actions cover, or 150 without actions.",
            RUN,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        _option(
            "seed", "The seed of noise and random actions. Default: the world's.", RUN, least=0
        ),
    ] = None,
    initial_latents: Annotated[
        Path | None, _option("initial-latents", "Continue from latents saved earlier.", RUN)
    ] = None,
    output_folder: Annotated[
        Path, _option("output-folder", "The folder for videos and trace.", OUTPUT)
    ] = Path("outputs"),
    save_latents: Annotated[
        Path | None, _option("save-latents", "Save the latents to this .safetensors file.", OUTPUT)
    ] = None,
    resume: Annotated[
        Path | None, _option("resume", "Go on with the session in this file.", RUN)
    ] = None,
    save_session: Annotated[
        Path | None,
        _option("save-session", "Save the session at the end to this file, to resume it.", OUTPUT),
    ] = None,
    light: Annotated[
        bool,
        _option("light", "Save the session without its caches: resumed less exactly.", OUTPUT),
    ] = False,
    enable_profile: Annotated[
        bool,
        _option("enable-profile", "Record a trace with every tag: profile_trace.json.", PROFILING),
    ] = False,
    profile_mode: Annotated[
        str | None,
        _option(
            "profile-mode",
            "full also records operators, kernels and memory; tags costs almost nothing. "
            "Default: full.",
            PROFILING,
            "full|tags",
        ),
    ] = None,
    profile_blocks: Annotated[
        str | None, _option("profile-blocks", "Record only blocks A to B-1.", PROFILING, "A:B")
    ] = None,
) -> None:
    """Generate a video from an image and actions, block by block.

    Press Ctrl-C to stop after the current block and keep the video so far. Press it again to abort.
    """
    given = dict(locals())
    from glassworld.generate import GenerateOptions, generate_video

    if not generate_video(GenerateOptions(**given)):
        raise typer.Exit(130)


@app.command()
def info(
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Print versions, hardware, extras and stored files, to paste into a bug report."""
    from glassworld.info import print_info

    print_info(json)


class _Elsewhere(TyperGroup):
    """A command known by name and one line, whose module loads when it is called."""

    def __init__(self, name: str, folder: str, variable: str, line: str) -> None:
        super().__init__(name=name, help=line)
        self._home = (f"glassworld.{folder}.cli", variable)

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        module, variable = self._home
        command = get_command(getattr(import_module(module), variable))
        command.params = [each for each in command.params if each.name not in COMPLETION]
        return command.make_context(*args, **kwargs)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `glassworld ...` and return the exit code of the process."""
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    for name, home in COMMANDS.items():
        group.add_command(_Elsewhere(name, *home))
    return _call(group, arguments, "glassworld")


def inference(arguments: Sequence[str] | None = None) -> int:
    """Run `python inference.py ...`: `generate` with the flags' familiar underscores."""
    familiar = typer.Typer(rich_markup_mode="markdown", add_completion=False)
    epilog = _examples("python inference.py", "_")
    familiar.command(epilog=epilog, context_settings=EITHER_SPELLING)(generate)
    command = get_command(familiar)
    for option in command.params:
        option.opts = [f"--{name.removeprefix('--').replace('-', '_')}" for name in option.opts]
    return _call(command, arguments, "inference.py")


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """End the command by SIGTERM as by an exception: what it has started ends with it."""

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _call(command: Any, arguments: Sequence[str] | None, name: str) -> int:
    if isinstance(sys.stdout, TextIOWrapper):  # redirected on Windows it knows 256 characters
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with _ended_by_sigterm():
            code = command.main(args=arguments, prog_name=name, standalone_mode=False)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # a group alone: its message is its help
            error.show()
        else:
            where = error.ctx.command_path if error.ctx else name
            print(f"error: {error.format_message()} (see {where} --help)", file=sys.stderr)
        return 2
    except SystemExit as end:
        code = end.code
    return code if isinstance(code, int) else 0
