"""The distilled model for scenes of any kind: move and turn the camera."""

from __future__ import annotations

from glassworld.engine.actions.track import ActionSpace, Control
from glassworld.engine.variants.variant import Variant, camera, pairs

SPACE = ActionSpace(
    mode="universal",
    keyboard=("forward", "back", "left", "right"),
    has_mouse=True,
    controls=(
        Control("forward", "w", "forward"),
        Control("back", "s", "back"),
        Control("left", "a", "left"),
        Control("right", "d", "right"),
        Control("camera_up", "i", mouse=camera(1, 0)),
        Control("camera_down", "k", mouse=camera(-1, 0)),
        Control("camera_left", "j", mouse=camera(0, -1)),
        Control("camera_right", "l", mouse=camera(0, 1)),
        Control("idle", "q"),
        Control("camera_idle", "u"),
    ),
    benchmark=(
        (("forward", "left"), ("forward", "right")) * 5
        + (("camera_left",), ("camera_right",)) * 5
        + (("forward",), ("left",), ("right",)) * 5
        + pairs(
            ("forward", "left", "right", "forward left", "forward right"),
            ("camera_left", "camera_right"),
        )
    ),
)

VARIANT = Variant(
    name="universal",
    space=SPACE,
    file="base_distilled_model/base_distill.safetensors",
    steps=(1000, 666, 333),
    window=6,
    keys="4 keys",
    mouse="turns the camera",
)
