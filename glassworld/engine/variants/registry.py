"""The variants, found as the modules of this folder, and the action spaces of their modes."""

from __future__ import annotations

from importlib import import_module

from glassworld.engine.actions.track import ActionSpace
from glassworld.engine.variants import variant_names
from glassworld.engine.variants.variant import Variant
from glassworld.errors import SpecError

DEFAULT_VARIANT = "universal"
VARIANTS: dict[str, Variant] = {
    name: import_module(f"{__package__}.{name}").VARIANT for name in variant_names()
}

ACTION_SPACES: dict[str, ActionSpace] = {
    variant.space.mode: variant.space for variant in VARIANTS.values()
}


def action_space(mode: str) -> ActionSpace:
    """Return the action space of a mode; raises `SpecError` for an unknown one."""
    if mode not in ACTION_SPACES:
        raise SpecError(f"unknown mode {mode!r}; there are {', '.join(ACTION_SPACES)}")
    return ACTION_SPACES[mode]
