"""All messages that the package has for a user, read from its sources."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from docs.hooks.commands import parameters, walk_commands

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "glassworld"

BASE_ERRORS = {"InputError", "ProtocolError", "SessionElsewhereError"}
MISSING_EXTRA = "MissingExtraError"
CLOSING = {"close", "_refuse"}
"""Methods that end a connection with a code and a reason."""


@dataclass(frozen=True)
class Message:
    """A text for a user, and where it comes from.

    `text` has `{expression}` where the program fills something in.
    """

    text: str
    where: str  # a module as `engine/world.py`, or a command with its flag
    line: int = 0


@cache
def error_messages() -> tuple[Message, ...]:
    """Return the text of every error that a user can cause, in the order of the sources.

    So are the reasons for which a server closes a connection. Errors whose text is built elsewhere
    (a variable, a call) are left out.
    """
    trees = {path: ast.parse(path.read_bytes()) for path in sorted(PACKAGE.rglob("*.py"))}
    kinds = _error_classes(trees.values())
    messages = []
    for path, tree in trees.items():
        where = path.relative_to(PACKAGE).as_posix()
        for call in ast.walk(tree):
            if not isinstance(call, ast.Call):
                continue
            if reason := _close_reason(call):
                messages.append(Message(reason, where, call.lineno))
            if _called(call) not in kinds or not call.args:
                continue
            parts = [_template(each) for each in call.args]
            if _called(call) == MISSING_EXTRA:
                parts = [f"{parts[0]} is not installed: pip install 'glassworld[{parts[1]}]'"]
            if parts[0]:
                messages.append(Message(parts[0], where, call.lineno))
    return tuple(messages)


def _called(call: ast.Call) -> str:
    """Return the name of the function, method or class that is called."""
    match call.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def _close_reason(call: ast.Call) -> str:
    """Return the literal reason of a call that ends a connection for an error; "" for others."""
    if _called(call) not in CLOSING or len(call.args) != 2 or call.keywords:
        return ""
    return _template(call.args[1])


def _error_classes(trees: object) -> set[str]:
    """Return the names of the errors whose text a user or the author of a client reads."""
    classes = [
        node
        for tree in trees  # type: ignore[attr-defined]
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    ]
    names, count = set(BASE_ERRORS), 0
    while count != len(names):
        count = len(names)
        names |= {
            each.name
            for each in classes
            if any(isinstance(base, ast.Name) and base.id in names for base in each.bases)
        }
    return names


def _template(node: ast.expr) -> str:
    """Return a literal's text, with what is filled in between braces; "" for anything else."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(
            f"{{{ast.unparse(each.value)}}}"
            if isinstance(each, ast.FormattedValue)
            else _template(each)
            for each in node.values
        )
    return ""


def help_messages() -> Iterator[Message]:
    """Yield the help of every command and of every parameter."""
    for words, command in walk_commands():
        yield Message(command.help or "", words)
        for each in parameters(command):
            yield Message(getattr(each, "help", None) or "", f"{words} {each.opts[0]}")
