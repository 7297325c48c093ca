"""A run's whole configuration as JSON values, for the trace's metadata and for benchmarks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from glassworld.specs import DiTSpec

if TYPE_CHECKING:
    from glassworld.engine.world import World


def describe(world: World, seed: int | None, num_latent_frames: int | None) -> dict[str, Any]:
    """Describe everything that the FLOPs, bytes and work of a run follow from.

    `num_latent_frames`: those to generate; None for a session without an end.
    """
    spec = world.spec
    return {
        "world": world.name,
        "mode": spec.mode,
        "seed": spec.seed if seed is None else seed,
        "num_latent_frames": num_latent_frames,
        "frames_per_block": spec.frames_per_block,
        "denoising_steps": list(spec.denoising_steps),
        "frame_rate": spec.frame_rate,
        "image_size": [spec.height, spec.width],
        "latent_shape": [spec.vae.latent_channels, *spec.latent_size],
        "window": spec.dit.window,
        "sink": spec.dit.sink,
        "model": _transformer(spec.dit, spec.vision.tokens),
        "vae": {
            "stage_widths": list(spec.vae.stage_widths),
            "residual_blocks": spec.vae.residual_blocks,
            "temporal": list(spec.vae.temporal),
            "latent_channels": spec.vae.latent_channels,
        },
        "clip": {
            "width": spec.vision.width,
            "layers": spec.vision.layers,
            "heads": spec.vision.heads,
            "mlp_width": spec.vision.mlp_width,
            "patch": spec.vision.patch,
            "image_size": spec.vision.image_size,
        },
        "dtype": str(world.dtype).removeprefix("torch."),
        "decoder_dtype": str(world.networks.decoder_dtype).removeprefix("torch."),
        "device": str(world.device),
        "threads": torch.get_num_threads(),
    }


def _transformer(dit: DiTSpec, context_tokens: int) -> dict[str, Any]:
    action = dit.action
    return {
        "dim": dit.dim,
        "ffn_dim": dit.ffn_dim,
        "num_layers": dit.num_layers,
        "num_heads": dit.num_heads,
        "freq_dim": dit.freq_dim,
        "in_dim": dit.in_dim,
        "out_dim": dit.out_dim,
        "patch": [1, dit.patch, dit.patch],
        "context_dim": dit.context_dim,
        "context_tokens": context_tokens,
        "action_layers": list(action.layers),
        "action_heads": action.heads,
        "action_hidden": action.embed_width,
        "keyboard_dim": action.keyboard_dim,
        "keyboard_hidden": action.keyboard_width,
        "mouse_dim": action.mouse_dim,
        "mouse_hidden": action.mouse_width,
        "action_rows": action.rows,
    }
