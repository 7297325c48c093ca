"""A world's weights as files of the released layout, to be started from as a person would."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from glassworld.engine.checkpoints import VISION_PREFIX, dit_to_released, vae_to_released
from glassworld.engine.loading import TRANSFORMER_FILE
from glassworld.engine.world import World
from glassworld.specs import DiTSpec, WorldSpec


def write_checkpoint(world: World, folder: Path) -> dict[str, Any]:
    """Write weights and configuration into `folder`; what `load_world` takes to read them."""
    networks = world.networks
    vae = {**networks.encoder.state_dict(), **networks.decoder.state_dict()}
    vision = {VISION_PREFIX + name: part for name, part in networks.vision.state_dict().items()}
    last = f"{VISION_PREFIX}transformer.{world.spec.vision.layers}.norm1.weight"  # is never run
    _write(folder / TRANSFORMER_FILE, dit_to_released(networks.dit.state_dict()))
    _write(folder / "vae.safetensors", vae_to_released(vae))
    _write(folder / "vision.safetensors", {**vision, last: torch.ones(world.spec.vision.width)})
    (folder / "config.json").write_text(json.dumps(_model(world.spec.dit)))
    configuration = folder / "inference.yaml"
    configuration.write_text(yaml.safe_dump(_inference(world.spec)))
    return {"config_path": str(configuration), "pretrained_model_path": str(folder)}


def _write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


def _inference(spec: WorldSpec) -> dict[str, Any]:
    return {
        "mode": spec.mode,
        "denoising_step_list": list(spec.denoising_steps),
        "warp_denoising_step": spec.warp_steps,
        "fresh_noise": spec.fresh_noise,
        "context_noise": spec.context_noise,
        "image_or_video_shape": [1, spec.vae.latent_channels, spec.dit.window, *spec.latent_size],
        "num_frame_per_block": spec.frames_per_block,
        "seed": spec.seed,
        "frame_rate": spec.frame_rate,
        "model_kwargs": {"timestep_shift": spec.timestep_shift, "model_config": "config.json"},
    }


def _model(spec: DiTSpec) -> dict[str, Any]:
    action = spec.action
    return {
        "dim": spec.dim,
        "ffn_dim": spec.ffn_dim,
        "freq_dim": spec.freq_dim,
        "num_layers": spec.num_layers,
        "num_heads": spec.num_heads,
        "in_dim": spec.in_dim,
        "out_dim": spec.out_dim,
        "eps": spec.eps,
        "local_attn_size": spec.window,
        "sink_size": spec.sink,
        "action_config": {
            "blocks": list(action.layers),
            "keyboard_dim_in": action.keyboard_dim,
            "enable_mouse": bool(action.mouse_dim),
            "mouse_dim_in": action.mouse_dim,
            "hidden_size": action.embed_width,
            "keyboard_hidden_dim": action.keyboard_width,
            "mouse_hidden_dim": action.mouse_width,
            "heads_num": action.heads,
            "rope_dim_list": [action.turning_dims],
            "rope_theta": action.rope_theta,
            "windows_size": action.window,
        },
    }
