"""The command line's reference page, made from the commands themselves."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

from typer.core import TyperGroup
from typer.main import get_command

from glassworld.cli import COMMANDS, COMPLETION, app

HEAD = """# Command line

This page is made from the commands when the site is built. `glassworld COMMAND --help` prints the
same. Both spellings of a flag work everywhere: `--enable-profile` and `--enable_profile`.
"""


def walk_commands() -> Iterator[tuple[str, Any]]:
    """Yield every command with the words that call it, such as `glassworld trace top`."""
    root = get_command(app)
    assert isinstance(root, TyperGroup)
    for name, command in sorted(root.commands.items()):
        yield f"glassworld {name}", command
    for name, (folder, variable, _) in COMMANDS.items():
        module = import_module(f"glassworld.{folder}.cli")
        yield from _walk(f"glassworld {name}", get_command(getattr(module, variable)))


def _walk(words: str, command: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(command, TyperGroup):
        for name, inner in command.commands.items():
            yield from _walk(f"{words} {name}", inner)
    else:
        yield words, command


def parameters(command: Any) -> list[Any]:
    """Return the parameters that a user may give."""
    return [
        each
        for each in command.params
        if each.name not in COMPLETION and not getattr(each, "hidden", False)
    ]


def command_page() -> str:
    """Return the page: a section for each command, with a table of its parameters."""
    lines = [HEAD]
    for words, command in walk_commands():
        lines += [f"## {words}", "", _plain(command.help or ""), ""]
        rows = [_row(command, each) for each in parameters(command)]
        if rows:
            lines += ["| parameter | meaning | default |", "|---|---|---|", *rows, ""]
    return "\n".join(lines)


def _row(command: Any, parameter: Any) -> str:
    help_text = _plain(getattr(parameter, "help", None) or "").replace("|", "\\|")
    if parameter.param_type_name == "argument":
        name = f"`{parameter.name.upper()}`"
    else:
        name = ", ".join(f"`{each}`" for each in parameter.opts)
    return f"| {name} | {help_text} | {_default(parameter)} |"


def _default(parameter: Any) -> str:
    value = parameter.default
    if value is None or callable(value) or value == "" or parameter.param_type_name == "argument":
        return ""
    if isinstance(value, bool):
        return ""
    return f"`{value}`"


def _plain(text: str) -> str:
    """Return help without the marks that only a terminal knows."""
    return text.replace("\b\n", "").replace("<", "&lt;").strip()
