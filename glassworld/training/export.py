"""From trained networks to a world that the ordinary loader reads: the released layout, float16."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
import yaml
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from glassworld.engine.checkpoints import (
    DIT_PREFIX,
    VISION_PREFIX,
    dit_to_released,
    vae_to_released,
)
from glassworld.engine.loading import TRANSFORMER_FILE
from glassworld.files import replacing
from glassworld.specs import SPACE_FACTOR, WAN_MEAN, WAN_STD
from glassworld.training.dit import DiTRecipe
from glassworld.training.forcing import FRESH_NOISE, WorldModel
from glassworld.training.latents import fold
from glassworld.training.samples import BLOCK
from glassworld.training.simulator import HEIGHT, WIDTH, Simulator
from glassworld.training.vae import VAE

FRAME_RATE = 12
VAE_FILE, VISION_FILE = "vae.safetensors", "vision.safetensors"


def export_world(vae: VAE, model: WorldModel, recipe: DiTRecipe, folder: Path) -> None:
    """Write weights and configuration into `folder`. The VAE is left as it was."""
    (folder / "config").mkdir(parents=True, exist_ok=True)
    dit = dit_to_released(model.dit.state_dict())
    assert all(name.startswith(DIT_PREFIX) for name in dit)
    _write(folder / TRANSFORMER_FILE, dit)
    _write(folder / VAE_FILE, released_vae(vae))
    _write(folder / VISION_FILE, released_vision(model))
    with replacing(folder / "config" / "config.json") as path:
        path.write_text(json.dumps(model_config(recipe), indent=1) + "\n")
    with replacing(folder / "inference.yaml") as path:
        path.write_text(yaml.safe_dump(inference_config(recipe), sort_keys=False))


def _write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    halves = {name: tensor.detach().half().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as draft:
        save_file(halves, draft)


@torch.no_grad()
def released_vae(vae: VAE) -> dict[str, Tensor]:
    """The VAE's tensors by their released names, with the released latents' statistics folded
    in: what the loader divides out again."""
    twin = VAE(vae.encoder.spec)
    twin.load_state_dict(vae.state_dict())
    mean, std = torch.tensor(WAN_MEAN), torch.tensor(WAN_STD)
    fold(twin, -mean / std, 1 / std)
    return vae_to_released({**twin.encoder.state_dict(), **twin.decoder.state_dict()})


def released_vision(model: WorldModel) -> dict[str, Tensor]:
    """The image tower's tensors; a stub stands for the last layer, which is never run."""
    tensors = {VISION_PREFIX + name: t for name, t in model.vision.state_dict().items()}
    last = f"{VISION_PREFIX}transformer.{model.vision.spec.layers}.norm1.weight"
    return {**tensors, last: torch.ones(model.vision.spec.width)}


def model_config(recipe: DiTRecipe) -> dict[str, object]:
    """The transformer's config.json, keys as in the release."""
    dit, action = recipe.spec, recipe.spec.action
    head = action.keyboard_width // action.heads
    still = (head - action.turning_dims) // 2
    return {
        "_class_name": "CausalWanModel",
        "action_config": {
            "blocks": list(action.layers),
            "enable_keyboard": True,
            "enable_mouse": True,
            "heads_num": action.heads,
            "hidden_size": action.embed_width,
            "img_hidden_size": dit.dim,
            "keyboard_dim_in": action.keyboard_dim,
            "keyboard_hidden_dim": action.keyboard_width,
            "mouse_dim_in": action.mouse_dim,
            "mouse_hidden_dim": action.mouse_width,
            "mouse_qk_dim_list": [action.turning_dims, still, still],
            "patch_size": [1, dit.patch, dit.patch],
            "qk_norm": True,
            "qkv_bias": False,
            "rope_dim_list": [action.turning_dims, still, still],
            "rope_theta": int(action.rope_theta),
            "vae_time_compression_ratio": 4,
            "windows_size": action.window,
        },
        "dim": dit.dim,
        "eps": dit.eps,
        "ffn_dim": dit.ffn_dim,
        "freq_dim": dit.freq_dim,
        "in_dim": dit.in_dim,
        "local_attn_size": dit.window,
        "model_type": "i2v",
        "num_heads": dit.num_heads,
        "num_layers": dit.num_layers,
        "out_dim": dit.out_dim,
        "sink_size": dit.sink,
    }


def inference_config(recipe: DiTRecipe) -> dict[str, object]:
    """The inference YAML: keys as in the release, `fresh_noise` and `frame_rate`."""
    channels = recipe.spec.out_dim
    shape = [1, channels, recipe.window, HEIGHT // SPACE_FACTOR, WIDTH // SPACE_FACTOR]
    return {
        "denoising_step_list": list(recipe.denoising_steps),
        "warp_denoising_step": True,
        "fresh_noise": FRESH_NOISE,
        "seed": 0,
        "image_or_video_shape": shape,
        "num_frame_per_block": BLOCK,
        "context_noise": 0,
        "mode": "universal",
        "frame_rate": FRAME_RATE,
        "model_kwargs": {"timestep_shift": 5.0, "model_config": "config"},
    }


def save_pictures(folder: Path, count: int = 8, seed: int = 77) -> None:
    """Starting pictures: views with some room ahead, one a place."""
    folder.mkdir(parents=True, exist_ok=True)
    simulator = Simulator(seed)
    saved = 0
    while saved < count:
        picture = simulator.reset()
        if simulator.clearance < 100:
            continue
        Image.fromarray(picture).save(folder / f"maze-{saved + 1}.png")
        saved += 1
    simulator.close()
