"""The tiny world as files in the released layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file

from glassworld.engine.checkpoint.load import load_world
from glassworld.engine.checkpoint.tensor_names import dit_to_released, vae_to_released
from glassworld.engine.world import World
from tests.support import tiny

CONFIG: dict[str, Any] = {
    "_class_name": "CausalWanModel",
    "action_config": {
        "blocks": [0, 1],
        "enable_keyboard": True,
        "enable_mouse": True,
        "heads_num": 2,
        "hidden_size": 8,
        "keyboard_dim_in": 4,
        "keyboard_hidden_dim": 32,
        "mouse_dim_in": 2,
        "mouse_hidden_dim": 32,
        "rope_dim_list": [4, 6, 6],
        "rope_theta": 256,
        "windows_size": 3,
    },
    "dim": 32,
    "ffn_dim": 48,
    "freq_dim": 16,
    "in_dim": 36,
    "local_attn_size": 6,
    "num_heads": 2,
    "num_layers": 3,
    "out_dim": 16,
    "text_len": 512,
}
INFERENCE: dict[str, Any] = {
    "denoising_step_list": [1000, 666, 333],
    "warp_denoising_step": True,
    "seed": 5,
    "image_or_video_shape": [1, 16, 12, 4, 6],
    "num_frame_per_block": 3,
    "context_noise": 0,
    "mode": "universal",
    "model_kwargs": {"timestep_shift": 5.0, "model_config": "config"},
}
DIT_FILE = "base_distilled_model/base_distill.safetensors"
CLIP_FILE = "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"


def lay_out(folder: Path) -> Path:
    """Save the tiny world as the release lays it out."""
    (folder / "config").mkdir()
    (folder / "config" / "config.json").write_text(json.dumps(CONFIG))
    (folder / "inference.yaml").write_text(yaml.safe_dump(INFERENCE))
    (folder / DIT_FILE).parent.mkdir()
    networks = tiny.world().networks
    save_file(dit_to_released(networks.dit.state_dict()), folder / DIT_FILE)
    vae = {**networks.encoder.state_dict(), **networks.decoder.state_dict()}
    torch.save(vae_to_released(vae), folder / "Wan2.1_VAE.pth")
    vision = {f"visual.{name}": w for name, w in networks.vision.state_dict().items()}
    last = {
        name.replace("transformer.0", "transformer.1"): tensor
        for name, tensor in vision.items()
        if "transformer.0" in name
    }
    unused = {"visual.head": torch.ones(2), "textual.norm.weight": torch.ones(2)}
    torch.save({**vision, **last, **unused}, folder / CLIP_FILE)
    return folder


def load(folder: Path, **changes: Any) -> World:
    return load_world(
        config_path=folder / "inference.yaml", pretrained_model_path=folder, **changes
    )
