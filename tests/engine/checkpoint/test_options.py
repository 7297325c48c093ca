"""The options of loading: the same in the function and in every command."""

from __future__ import annotations

import json
from dataclasses import fields
from inspect import signature
from pathlib import Path

import pytest
import typer

from glassworld.cli import main
from glassworld.engine.checkpoint.load import load_world
from glassworld.engine.checkpoint.options import FLAGS, LoadOptions, split_parts
from glassworld.load_flags import with_load_flags


def test_load_world_takes_every_option_with_the_same_default() -> None:
    parameters = signature(load_world).parameters
    assert list(parameters) == [option.name for option in fields(LoadOptions)]
    assert {name: part.default for name, part in parameters.items()} == vars(LoadOptions())


@pytest.mark.parametrize("command", ["generate", "play", "bench run", "eval"])
def test_commands_that_load_a_world_have_every_flag(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main([*command.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    for name in FLAGS:
        assert f"--{name.replace('_', '-')} " in shown


def test_train_names_the_world_to_start_from(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["train", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(flag in shown for flag in ("--world", "--start", "--variant", "--device"))


def command_line(*arguments: str) -> list[tuple[LoadOptions, int]]:
    """Run a command of two flags of loading and one of its own; return what it was called with."""
    calls: list[tuple[LoadOptions, int]] = []
    app = typer.Typer()

    @app.command()
    @with_load_flags("world", "accelerate", world="--start")
    def run(load: LoadOptions, own: int = 1) -> None:
        calls.append((load, own))

    app([*arguments], standalone_mode=False)
    return calls


def test_with_load_flags_without_flags_gives_the_defaults() -> None:
    assert command_line() == [(LoadOptions(), 1)]


def test_with_load_flags_parses_each_field() -> None:
    expected = LoadOptions(world="maze", accelerate=("kernels", "graphs"))
    parts = ("--accelerate", "kernels, graphs", "--own", "2")
    assert command_line("--world", "maze", *parts) == [(expected, 2)]
    assert command_line("--start", "maze", *parts) == [(expected, 2)]


def test_keywords_are_json_and_make_the_same_options() -> None:
    options = LoadOptions(world="maze", tiny_decoder=Path("taew2_1.pth"), accelerate=("int8",))
    keywords = json.loads(json.dumps(options.keywords("accelerate")))
    assert keywords["tiny_decoder"] == "taew2_1.pth"
    assert "accelerate" not in keywords
    assert LoadOptions(**keywords).world == "maze"


def test_split_parts_ignores_spaces_and_empty_parts() -> None:
    assert split_parts(" kernels, graphs,,") == ("kernels", "graphs")
    assert split_parts("") == ()
