"""The flags that load a world, for the command line: built from the fields of `LoadOptions`."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import Parameter, signature
from typing import Annotated, Any

import typer

from glassworld.engine.checkpoint.options import FLAGS, LoadOptions

Command = Callable[..., Any]


def with_load_flags(*names: str, **aliases: str) -> Callable[[Command], Command]:
    """Replace a command's parameter `load: LoadOptions` by the flags that make one.

    `names`: the fields to offer, all of them by default. `aliases`: more spellings of a field's
    flag with spaces between them, such as `world="--from --start"`.
    """
    offered = names or tuple(FLAGS)

    def decorate(command: Command) -> Command:
        @wraps(command)
        def run(**arguments: Any) -> Any:
            values = {name: _value(name, arguments.pop(name)) for name in offered}
            return command(load=LoadOptions(**values), **arguments)

        parameters = dict(signature(command, eval_str=True).parameters)
        del parameters["load"]
        flags = [_parameter(name, aliases.get(name)) for name in offered]
        own = [parameter.replace(kind=Parameter.KEYWORD_ONLY) for parameter in parameters.values()]
        parts = [*flags, *own]
        run.__signature__ = signature(command).replace(parameters=parts)  # type: ignore[attr-defined]
        run.__annotations__ = {part.name: part.annotation for part in parts}
        return run

    return decorate


def as_flags(load: LoadOptions) -> list[str]:
    """Return the words of the command line that give these options."""
    words = []
    for name, (option, _) in FLAGS.items():
        value = getattr(load, name)
        if value == option.default:
            continue
        words.append(_spelling(name))
        if value is not True:
            words.append(",".join(value) if isinstance(value, tuple) else str(value))
    return words


def _spelling(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _parameter(name: str, alias: str | None) -> Parameter:
    """Return the typer option of a field, as a parameter of a command."""
    option, flag = FLAGS[name]
    spellings = [_spelling(name), *(alias or "").split()]
    settings = typer.Option(
        *spellings, help=flag.help, rich_help_panel=flag.panel, metavar=flag.metavar
    )
    default = None if flag.parse else option.default
    kind: Any = flag.kind if default is not None else flag.kind | None
    return Parameter(
        name, Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, settings]
    )


def _value(name: str, value: Any) -> Any:
    """Return a field's value for what the command line gave."""
    option, flag = FLAGS[name]
    if flag.parse is None:
        return value
    return option.default if value is None else flag.parse(value)
