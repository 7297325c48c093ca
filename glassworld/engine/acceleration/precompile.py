"""Compile the GPU's kernels before the first block needs them, all side by side.

Triton compiles a kernel when it is first called: some forty, one after another, keep the first
frames waiting for a quarter of a minute. So each network runs on a small input with which nothing
is launched. Triton stores the compiled kernels, and the next start only loads them.
"""

from __future__ import annotations

import torch

from glassworld.engine.networks import Networks
from glassworld.models.kernels.launch import compile_without_launching
from glassworld.models.transformer.action import ActionWindows
from glassworld.models.vae.causal_conv import FeatureCache
from glassworld.specs import WorldSpec

PATCHES = (4, 4)  # of a latent frame: like those of real ones a multiple of 16, which kernels know


def precompile_kernels(spec: WorldSpec, networks: Networks) -> None:
    """Compile every kernel that a block of this world calls."""
    with compile_without_launching(networks.device):
        run_transformer(spec, networks)
        run_decoder(spec, networks)


@torch.inference_mode()
def run_transformer(spec: WorldSpec, networks: Networks) -> None:
    """Run a pass over small frames, and its update of the caches."""
    dit, frames = networks.dit, spec.frames_per_block
    rows, columns = (spec.dit.patch * patches for patches in PATCHES)
    like = dit.head.head.weight
    windows = (1, frames, spec.dit.action.rows)
    inputs = (
        like.new_zeros(1, spec.dit.in_dim, frames, rows, columns),
        torch.zeros(1, 1, device=like.device),
        dit.stream_position(0, frames, PATCHES),
        ActionWindows(
            like.new_zeros(*windows, spec.dit.action.keyboard_dim),
            like.new_zeros(*windows, 2) if spec.dit.action.mouse_dim else None,
        ),
        dit.context_kv(like.new_zeros(1, 1, spec.dit.context_dim)),
        dit.empty_caches(1, PATCHES[0] * PATCHES[1]),
    )
    for output in (True, False):
        dit(*inputs, output=output)


@torch.inference_mode()
def run_decoder(spec: WorldSpec, networks: Networks) -> None:
    """Decode three small latent frames: from the third on, all are decoded alike."""
    decoder = networks.decoder
    rows, columns = (4 * patches for patches in PATCHES)
    like = next(decoder.parameters())
    latents = like.new_zeros(1, spec.vae.latent_channels, 3, rows, columns)
    for _ in decoder.stream(latents, FeatureCache()):
        pass
