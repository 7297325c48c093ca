"""The distilled model of a runner: seven keys, one at a time, and no mouse."""

from __future__ import annotations

from glassworld.engine.actions.track import ActionSpace, Control
from glassworld.engine.variants.variant import Variant

KEYS = {
    "jump": "w",
    "slide": "s",
    "leftside": "a",
    "rightside": "d",
    "turnleft": "z",
    "turnright": "c",
    "nomove": "q",
}


SPACE = ActionSpace(
    mode="templerun",
    keyboard=("nomove", "jump", "slide", "turnleft", "turnright", "leftside", "rightside"),
    has_mouse=False,
    controls=tuple(Control(name, key, name) for name, key in KEYS.items()),
    benchmark=tuple(
        (name,)
        for name in ("jump", "slide", "leftside", "rightside", "turnleft", "turnright", "nomove")
    ),
    idle="nomove",
)

VARIANT = Variant(
    name="templerun",
    space=SPACE,
    file="templerun_distilled_model/templerun_7dim_onlykey.safetensors",
    steps=(1000, 750, 500, 250),
    window=6,
    keys="7 keys, one at a time",
    mouse="none",
)
