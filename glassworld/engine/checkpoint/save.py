"""A world's settings and tensors as a release's files hold them: what the loader reads."""

from __future__ import annotations

import torch
from torch import Tensor

from glassworld.engine.checkpoint.tensor_names import VISION_PREFIX
from glassworld.models.vision import VisionTower
from glassworld.specs import TIME_FACTOR, DiTSpec, WorldSpec


def vision_to_released(vision: VisionTower) -> dict[str, Tensor]:
    """The image tower's tensors; a stub stands for the last layer, which is never run."""
    tensors = {VISION_PREFIX + name: part for name, part in vision.state_dict().items()}
    last = f"{VISION_PREFIX}transformer.{vision.spec.layers}.norm1.weight"
    return {**tensors, last: torch.ones(vision.spec.width)}


def model_config(spec: DiTSpec) -> dict[str, object]:
    """The transformer's config.json, keys as in the release."""
    action = spec.action
    head = action.keyboard_width // action.heads
    still = (head - action.turning_dims) // 2
    return {
        "_class_name": "CausalWanModel",
        "action_config": {
            "blocks": list(action.layers),
            "enable_keyboard": True,
            "enable_mouse": bool(action.mouse_dim),
            "heads_num": action.heads,
            "hidden_size": action.embed_width,
            "img_hidden_size": spec.dim,
            "keyboard_dim_in": action.keyboard_dim,
            "keyboard_hidden_dim": action.keyboard_width,
            "mouse_dim_in": action.mouse_dim,
            "mouse_hidden_dim": action.mouse_width,
            "mouse_qk_dim_list": [action.turning_dims, still, still],
            "patch_size": [1, spec.patch, spec.patch],
            "qk_norm": True,
            "qkv_bias": False,
            "rope_dim_list": [action.turning_dims, still, still],
            "rope_theta": action.rope_theta,
            "vae_time_compression_ratio": TIME_FACTOR,
            "windows_size": action.window,
        },
        "dim": spec.dim,
        "eps": spec.eps,
        "ffn_dim": spec.ffn_dim,
        "freq_dim": spec.freq_dim,
        "in_dim": spec.in_dim,
        "local_attn_size": spec.window,
        "model_type": "i2v",
        "num_heads": spec.num_heads,
        "num_layers": spec.num_layers,
        "out_dim": spec.out_dim,
        "sink_size": spec.sink,
    }


def inference_config(spec: WorldSpec, model: str) -> dict[str, object]:
    """The inference YAML: keys as in the release, `fresh_noise` and `frame_rate`.

    `model`: where the transformer's config.json is, from the YAML's own folder.
    """
    return {
        "denoising_step_list": list(spec.denoising_steps),
        "warp_denoising_step": spec.warp_steps,
        "fresh_noise": spec.eta,
        "seed": spec.seed,
        "image_or_video_shape": [1, spec.vae.latent_channels, spec.dit.window, *spec.latent_size],
        "num_frame_per_block": spec.frames_per_block,
        "context_noise": spec.context_noise,
        "mode": spec.mode,
        "frame_rate": spec.frame_rate,
        "model_kwargs": {"timestep_shift": spec.timestep_shift, "model_config": model},
    }
