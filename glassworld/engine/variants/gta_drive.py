"""The distilled model that drives: forward, back, and steer by the mouse."""

from __future__ import annotations

from glassworld.engine.actions.track import ActionSpace, Control
from glassworld.engine.variants.variant import Variant, camera, pairs

SPACE = ActionSpace(
    mode="gta_drive",
    keyboard=("forward", "back"),
    has_mouse=True,
    controls=(
        Control("forward", "w", "forward"),
        Control("back", "s", "back"),
        Control("left", "a", mouse=camera(0, -1)),
        Control("right", "d", mouse=camera(0, 1)),
        Control("idle", "q"),
    ),
    benchmark=(
        (("left",), ("right",)) * 2
        + (("forward",), ("back",)) * 2
        + pairs(("forward", "back"), ("left", "right"))
    ),
)

VARIANT = Variant(
    name="gta_drive",
    space=SPACE,
    file="gta_distilled_model/gta_keyboard2dim.safetensors",
    steps=(1000, 666, 333),
    window=4,
    keys="2 keys",
    mouse="steers",
)
