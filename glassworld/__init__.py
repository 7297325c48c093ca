"""glassworld: an engine for Matrix-Game-2 world models that shows where every millisecond goes.

    world = glassworld.load_world()
    rollout = world.generate("image.png", num_latent_frames=12)

Everything here loads when it is first used, so that importing the package is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glassworld.engine.actions.track import Action, ActionTrack
    from glassworld.engine.batch import SessionBatch
    from glassworld.engine.checkpoint.load import load_world
    from glassworld.engine.rollout import Rollout
    from glassworld.engine.session import Session
    from glassworld.engine.world import World
    from glassworld.errors import InputError
    from glassworld.profiling.capture import profile
    from glassworld.profiling.tags import tag

__version__ = "0.1.0"

__all__ = [
    "Action",
    "ActionTrack",
    "InputError",
    "Rollout",
    "Session",
    "SessionBatch",
    "World",
    "__version__",
    "load_world",
    "profile",
    "tag",
]

_HOMES = {
    "Action": "glassworld.engine.actions.track",
    "ActionTrack": "glassworld.engine.actions.track",
    "InputError": "glassworld.errors",
    "Rollout": "glassworld.engine.rollout",
    "Session": "glassworld.engine.session",
    "SessionBatch": "glassworld.engine.batch",
    "World": "glassworld.engine.world",
    "load_world": "glassworld.engine.checkpoint.load",
    "profile": "glassworld.profiling.capture",
    "tag": "glassworld.profiling.tags",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
