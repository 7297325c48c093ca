"""Write trained networks as a world in the released layout, in half precision."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
import yaml
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
from glassworld.training.data.segments import BLOCK
from glassworld.training.objectives.transformer import DiTRecipe
from glassworld.training.objectives.vae import VAE, rescale_latents
from glassworld.training.objectives.world_model import ETA, WorldModel
from glassworld.training.sources.maze import HEIGHT, WIDTH

FRAME_RATE = 12
VAE_FILE, VISION_FILE = "vae.safetensors", "vision.safetensors"


def export_world(vae: VAE, model: WorldModel, recipe: DiTRecipe, folder: Path) -> None:
    """Write weights and configuration into `folder`, for the ordinary loader."""
    (folder / "config").mkdir(parents=True, exist_ok=True)
    dit = dit_to_released(model.dit.state_dict())
    assert all(name.startswith(DIT_PREFIX) for name in dit)
    _write(folder / TRANSFORMER_FILE, dit)
    _write(folder / VAE_FILE, released_vae(vae))
    _write(folder / VISION_FILE, vision_to_released(model.vision))
    spec = trained_spec(vae, model, recipe)
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
    """Return the tensors of the VAE by their released names.

    The statistics of the released latents are folded into them: the engine divides by them.
    """
    copy = VAE(vae.encoder.spec)
    copy.load_state_dict(vae.state_dict())
    mean, std = torch.tensor(WAN_MEAN), torch.tensor(WAN_STD)
    rescale_latents(copy, -mean / std, 1 / std)
    return vae_to_released({**copy.encoder.state_dict(), **copy.decoder.state_dict()})


def trained_spec(vae: VAE, model: WorldModel, recipe: DiTRecipe) -> WorldSpec:
    """Return the specification of the world that was trained."""
    return WorldSpec(
        mode="universal",
        dit=recipe.spec,
        vae=vae.encoder.spec,
        vision=model.vision.spec,
        height=HEIGHT,
        width=WIDTH,
        frames_per_block=BLOCK,
        denoising_steps=recipe.denoising_steps,
        eta=ETA,
        frame_rate=FRAME_RATE,
    )
