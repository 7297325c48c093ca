"""A tiny world written to disk in the released layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file

from glassworld.engine.checkpoint.tensor_names import (
    VISION_PREFIX,
    dit_to_released,
    vae_to_released,
)
from tests.support import tiny

TRANSFORMER = Path("model/base_distilled_model/base_distill.safetensors")
VAE = Path("model/Wan2.1_VAE.pth")
VISION = Path("model/models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth")


def write_release(folder: Path) -> list[str]:
    """Write YAML, config, model folder and picture; returns the flags that run them."""
    (folder / TRANSFORMER).parent.mkdir(parents=True)
    (folder / "config").mkdir()
    networks = tiny.world().networks
    save_file(dit_to_released(networks.dit.state_dict()), folder / TRANSFORMER)
    vae = {**networks.encoder.state_dict(), **networks.decoder.state_dict()}
    torch.save(vae_to_released(vae), folder / VAE)
    vision = {VISION_PREFIX + name: part for name, part in networks.vision.state_dict().items()}
    vision[f"{VISION_PREFIX}transformer.1.unused"] = torch.zeros(1)  # the last layer never runs
    torch.save(vision, folder / VISION)
    (folder / "config" / "config.json").write_text(json.dumps(model_config()))
    settings = {
        "mode": "universal",
        "denoising_step_list": [1000, 500],
        "warp_denoising_step": True,
        "image_or_video_shape": [1, 16, 12, 4, 6],
        "num_frame_per_block": 3,
        "seed": 5,
        "model_kwargs": {"timestep_shift": 5.0, "model_config": "config"},
    }
    (folder / "inference.yaml").write_text(yaml.safe_dump(settings))
    tiny.picture().save(folder / "picture.png")
    return [
        "--config_path",
        str(folder / "inference.yaml"),
        "--pretrained_model_path",
        str(folder / "model"),
        "--img_path",
        str(folder / "picture.png"),
    ]


def model_config() -> dict[str, Any]:
    dit, action = tiny.DIT, tiny.DIT.action
    return {
        "dim": dit.dim,
        "ffn_dim": dit.ffn_dim,
        "num_layers": dit.num_layers,
        "num_heads": dit.num_heads,
        "freq_dim": dit.freq_dim,
        "local_attn_size": dit.window,
        "action_config": {
            "blocks": list(action.layers),
            "keyboard_dim_in": action.keyboard_dim,
            "hidden_size": action.embed_width,
            "keyboard_hidden_dim": action.keyboard_width,
            "mouse_hidden_dim": action.mouse_width,
            "heads_num": action.heads,
            "rope_dim_list": [action.rotary_dims],
        },
    }
