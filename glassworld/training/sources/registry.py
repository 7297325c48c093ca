"""The sources by name. Their modules are imported when one is opened."""

import re
from collections.abc import Callable
from pathlib import Path

from glassworld.errors import InputError, MissingExtraError
from glassworld.training.sources.source import Source


def _open_maze(_: str, seed: int) -> Source:
    from glassworld.training.sources.maze import VizdoomMaze

    return VizdoomMaze(seed)


def _open_drive(_: str, seed: int) -> Source:
    from glassworld.training.sources.drive import DriveSource

    return DriveSource(seed)


def _open_run(_: str, seed: int) -> Source:
    from glassworld.training.sources.run import RunSource

    return RunSource(seed)


def _open_gymnasium(argument: str, seed: int) -> Source:
    try:
        from glassworld.training.sources.gymnasium_env import open_gymnasium
    except ModuleNotFoundError as error:
        raise MissingExtraError("gymnasium", "train") from error
    return open_gymnasium(argument, seed)


_OPENERS: dict[str, Callable[[str, int], Source]] = {
    "maze": _open_maze,
    "drive": _open_drive,
    "run": _open_run,
    "gymnasium": _open_gymnasium,
}
"""By the part of the name before a colon. Each takes the part after it and the seed."""

SOURCE_NAMES = {
    "maze": "maze",
    "drive": "drive",
    "run": "run",
    "gymnasium": "gymnasium:ID@MAPPING",
}
"""By the same keys: how the name is written, for messages."""


GYMNASIUM_PREFIX = "gymnasium:"
"""Of the names of sources whose environment is the user's own."""


def file_stem(name: str) -> str:
    """Return a source's name without its mapping, in characters that files may have."""
    return re.sub(r"[^\w.-]+", "-", name.partition("@")[0])


def absolute_source(name: str) -> str:
    """Return a source's name with the full path of its mapping, for other working folders."""
    source, at, mapping = name.partition("@")
    return f"{source}@{Path(mapping).resolve()}" if at else name


def open_source(name: str, seed: int = 0) -> Source:
    """Open a source by its name.

    Parameters
    ----------
    name
        A name of `SOURCE_NAMES`.
    seed
        Determines the places of all resets.

    Raises
    ------
    InputError
        There is no source of that name, or what it needs is missing.
    """
    kind, _, argument = name.partition(":")
    if name not in _OPENERS and not name.startswith(GYMNASIUM_PREFIX):
        raise InputError(f"no source {name!r}; choose one of {', '.join(SOURCE_NAMES.values())}")
    return _OPENERS[kind](argument, seed)
