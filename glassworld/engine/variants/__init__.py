"""The released variants: one module each, discovered in this folder."""

from __future__ import annotations

from pathlib import Path

ORDER = ("universal", "gta_drive", "templerun")
"""The release's order, in which people read them; others follow by name."""


def variant_names() -> tuple[str, ...]:
    """Return the names of the variants, which are their modules', without importing them."""
    modules = {path.stem for path in Path(__file__).parent.glob("*.py")}
    names = modules - {"__init__", "registry", "variant"}
    return (*ORDER, *sorted(names - set(ORDER)))
