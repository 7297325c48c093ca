"""The variants, found as the modules of this folder, and the action spaces of their modes."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from glassworld.engine.actions.track import ActionSpace
from glassworld.engine.variants.variant import Variant
from glassworld.errors import SpecError

DEFAULT_VARIANT = "universal"
ORDER = ("universal", "gta_drive", "templerun")
"""The release's order, in which people read them; others follow by name."""


def _discover() -> dict[str, Variant]:
    """Return the `VARIANT` of each module of this folder that has one, by its name."""
    modules = (
        import_module(f"{__package__}.{path.stem}")
        for path in sorted(Path(__file__).parent.glob("*.py"))
        if path.stem not in ("__init__", "registry", "variant")
    )
    found = {module.VARIANT.name: module.VARIANT for module in modules}
    return {name: found[name] for name in (*ORDER, *sorted(found.keys() - set(ORDER)))}


VARIANTS: dict[str, Variant] = _discover()

ACTION_SPACES: dict[str, ActionSpace] = {
    variant.space.mode: variant.space for variant in VARIANTS.values()
}


def action_space(mode: str) -> ActionSpace:
    """Return the action space of a mode; raises `SpecError` for an unknown one."""
    if mode not in ACTION_SPACES:
        raise SpecError(f"unknown mode {mode!r}; there are {', '.join(ACTION_SPACES)}")
    return ACTION_SPACES[mode]
