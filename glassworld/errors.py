"""Errors that users can cause and fix.

Each is an `InputError`: one line that names the thing, what is wrong with it and what to do.
The command line prints it and exits with 2, without a traceback.
"""


class InputError(ValueError):
    """The user's input cannot be used; the message is one clear line."""


class SpecError(InputError):
    """A world's configuration contradicts itself or asks for the impossible."""


class CheckpointError(InputError):
    """A checkpoint is missing, truncated, unsafe or does not fit."""


class ImageError(InputError):
    """A start image cannot be read or used."""


class ActionError(InputError):
    """Actions are malformed, out of range or of another mode."""


class ActionModeError(ActionError):
    """Actions are of another mode: they have its columns or its name."""


class TraceError(InputError):
    """A trace cannot be read or compared."""


class MissingExtraError(InputError):
    """An optional dependency is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} is not installed: pip install 'glassworld[{extra}]'")
