"""From trained networks to a world that the ordinary loader reads: the released layout, float16."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
import yaml
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from glassworld.engine.checkpoint.locate import TRANSFORMER_FILE
from glassworld.engine.checkpoint.save import inference_config, model_config, vision_to_released
from glassworld.engine.checkpoint.tensor_names import (
    DIT_PREFIX,
    dit_to_released,
    vae_to_released,
)
from glassworld.files import replacing
from glassworld.specs import WAN_MEAN, WAN_STD, WorldSpec
from glassworld.training.data.latents import fold
from glassworld.training.data.segments import BLOCK
from glassworld.training.objectives.transformer import DiTRecipe
from glassworld.training.objectives.vae import VAE
from glassworld.training.objectives.world_model import FRESH_NOISE, WorldModel
from glassworld.training.sources.maze import HEIGHT, WIDTH, MazeEnvironment

FRAME_RATE = 12
VAE_FILE, VISION_FILE = "vae.safetensors", "vision.safetensors"


def export_world(vae: VAE, model: WorldModel, recipe: DiTRecipe, folder: Path) -> None:
    """Write weights and configuration into `folder`. The VAE is left as it was."""
    (folder / "config").mkdir(parents=True, exist_ok=True)
    dit = dit_to_released(model.dit.state_dict())
    assert all(name.startswith(DIT_PREFIX) for name in dit)
    _write(folder / TRANSFORMER_FILE, dit)
    _write(folder / VAE_FILE, released_vae(vae))
    _write(folder / VISION_FILE, vision_to_released(model.vision))
    spec = world_spec(vae, model, recipe)
    with replacing(folder / "config" / "config.json") as path:
        path.write_text(json.dumps(model_config(spec.dit), indent=1) + "\n")
    with replacing(folder / "inference.yaml") as path:
        path.write_text(yaml.safe_dump(inference_config(spec, "config"), sort_keys=False))


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


def world_spec(vae: VAE, model: WorldModel, recipe: DiTRecipe) -> WorldSpec:
    """What was trained, as a world."""
    return WorldSpec(
        mode="universal",
        dit=recipe.spec,
        vae=vae.encoder.spec,
        vision=model.vision.spec,
        height=HEIGHT,
        width=WIDTH,
        frames_per_block=BLOCK,
        denoising_steps=recipe.denoising_steps,
        eta=FRESH_NOISE,
        frame_rate=FRAME_RATE,
    )


def save_pictures(folder: Path, count: int = 8, seed: int = 77) -> None:
    """Starting pictures: views with some room ahead, one a place."""
    folder.mkdir(parents=True, exist_ok=True)
    simulator = MazeEnvironment(seed)
    saved = 0
    while saved < count:
        picture = simulator.reset()
        if simulator.clearance < 100:
            continue
        Image.fromarray(picture).save(folder / f"maze-{saved + 1}.png")
        saved += 1
    simulator.close()
