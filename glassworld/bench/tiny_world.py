"""A tiny world of fixed weights, computed by a formula: the same on every machine and version.

The tests run it, and the check of a GPU compares it on two devices.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from glassworld.engine.networks import Networks
from glassworld.engine.world import World
from glassworld.models.transformer.dit import DiT
from glassworld.models.vae.decoder import VAEDecoder
from glassworld.models.vae.encoder import VAEEncoder
from glassworld.models.vision import VisionTower
from glassworld.specs import ActionModuleSpec, DiTSpec, VAESpec, VisionSpec, WorldSpec

TINY_DIT = DiTSpec(
    action=ActionModuleSpec(
        layers=(0, 1),
        keyboard_dim=4,
        embed_width=8,
        keyboard_width=32,
        mouse_width=32,
        heads=2,
        rotary_dims=4,
    ),
    dim=32,
    ffn_dim=48,
    num_layers=3,
    num_heads=2,
    freq_dim=16,
    context_dim=24,
)
TINY_SPEC = WorldSpec(
    mode="universal",
    dit=TINY_DIT,
    vae=VAESpec(width=4, residual_blocks=1),
    vision=VisionSpec(width=24, layers=1, heads=1, patch=56, mlp_width=32),
    height=32,
    width=48,
    seed=5,
)


def fill_weights(network: nn.Module, seed: int) -> None:
    """Draw weights that keep activations near unit size, from numpy's stable generator."""
    random = np.random.default_rng(seed)
    for name, weight in sorted(network.named_parameters()):
        drawn = random.standard_normal(tuple(weight.shape)).astype(np.float32)
        fan_in = weight[0].numel() if weight.dim() > 1 else 100
        values = torch.from_numpy(drawn) * fan_in**-0.5
        if weight.dim() == 1 and name.endswith(("weight", "gamma")):
            values += 1
        weight.data.copy_(values)
    network.eval().requires_grad_(False)


def tiny_world(**changes: Any) -> World:
    """Build the tiny world.

    Keyword arguments change its spec, `dit={...}` the spec of its transformer.
    """
    dit_changes = changes.pop("dit", {})
    spec = replace(TINY_SPEC, dit=replace(TINY_DIT, **dit_changes), **changes)
    networks = Networks(
        DiT(spec.dit), VAEEncoder(spec.vae), VAEDecoder(spec.vae), VisionTower(spec.vision)
    )
    parts = (networks.dit, networks.encoder, networks.decoder, networks.vision)
    for seed, network in enumerate(parts, start=1):
        fill_weights(network, seed)
    return World(spec, networks, "tiny")


def tiny_start_image(height: int = 40, width: int = 70) -> Image.Image:
    """Draw a smooth image with one edge in it."""
    rows, columns = np.mgrid[0:height, 0:width]
    red = 255 * columns / width
    green = 255 * rows / height
    blue = 255.0 * (columns > width / 2)
    return Image.fromarray(np.stack([red, green, blue], -1).astype(np.uint8))
