"""Read any torch trace and answer: where did the time go, and what to do about it.

Needs no torch. `analyze(path)` gives typed results; `glassworld trace` is the command line.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glassworld.trace.timeline.merged import analyze

__all__ = ["analyze"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("glassworld.trace.timeline.merged"), name)
