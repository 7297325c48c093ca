"""The whole numbers that callers give: seeds and lengths, checked in one place."""

from __future__ import annotations

from operator import index

from glassworld.engine.sampling import MAX_SEED
from glassworld.errors import InputError
from glassworld.specs import WorldSpec

DEFAULT_FRAMES = 150
"""Latent frames of a run of which neither the length nor the actions are given."""


def default_length(spec: WorldSpec) -> int:
    """Return `DEFAULT_FRAMES` in whole blocks."""
    return max(1, DEFAULT_FRAMES // spec.frames_per_block) * spec.frames_per_block


def whole_number(name: str, value: object) -> int:
    """Return any integer, such as a NumPy one, as an int; `name` stands in the error.

    Raises `InputError` for anything else: texts, floats (12.0 too) and truth values.
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        return index(value)  # type: ignore[arg-type] # which is what it tests
    except (TypeError, ValueError, RuntimeError):
        kind = type(value).__name__
        text = " ".join(repr(value).split())
        raise InputError(f"{name} {text:.80}: must be a whole number, not {kind}") from None


def checked_seed(seed: object, spec: WorldSpec) -> int:
    """Return a seed as an int, the world's own for None; raise `InputError` for none."""
    number = spec.seed if seed is None else whole_number("seed", seed)
    if not 0 <= number <= MAX_SEED:
        raise InputError(f"seed {number}: must lie between 0 and {MAX_SEED}")
    return number


def checked_length(num_latent_frames: object, spec: WorldSpec) -> int:
    """Return a run's length as an int; raise `InputError` if it is not in whole blocks."""
    number, step = whole_number("num_latent_frames", num_latent_frames), spec.frames_per_block
    if number <= 0 or number % step:
        raise InputError(
            f"num_latent_frames {number}: must be a positive multiple of the "
            f"{step} latent frames of a block"
        )
    return number
