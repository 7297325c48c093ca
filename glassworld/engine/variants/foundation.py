"""The undistilled model: the action space of `universal`, and many steps."""

from __future__ import annotations

from glassworld.engine.variants.universal import SPACE
from glassworld.engine.variants.variant import LAYERS, Variant

VARIANT = Variant(
    name="foundation",
    space=SPACE,
    file="base_model/diffusion_pytorch_model.safetensors",
    steps=tuple(range(1000, 0, -20)),
    window=-1,
    action_layers=LAYERS,
    keys="4 keys",
    mouse="turns the camera",
)
