"""Write trained networks as a world in the released layout, in half precision."""

from dataclasses import replace
from pathlib import Path

import torch

from glassworld.engine.checkpoint.save import save_world
from glassworld.engine.networks import Networks
from glassworld.specs import WAN_MEAN, WAN_STD, WorldSpec
from glassworld.training.objectives.transformer import DiTRecipe
from glassworld.training.objectives.vae import VAE, rescale_latents
from glassworld.training.objectives.world_model import ETA, WorldModel


def export_world(
    vae: VAE, model: WorldModel, recipe: DiTRecipe, folder: Path, source: str = ""
) -> None:
    """Write weights and configuration into `folder`, for the ordinary loader.

    `source` is what they learned from.
    """
    scaled = _with_released_statistics(vae)
    networks = Networks(model.dit, scaled.encoder, scaled.decoder, model.vision)
    spec = trained_spec(vae, model, recipe)
    save_world(folder, spec, networks, source=source, dtype=torch.float16)


@torch.no_grad()
def _with_released_statistics(vae: VAE) -> VAE:
    """Return a copy with the statistics of the released latents folded into its weights.

    The engine divides by them.
    """
    copy = VAE(vae.encoder.spec)
    copy.load_state_dict(vae.state_dict())
    mean, std = torch.tensor(WAN_MEAN), torch.tensor(WAN_STD)
    rescale_latents(copy, -mean / std, 1 / std)
    return copy


def trained_spec(vae: VAE, model: WorldModel, recipe: DiTRecipe) -> WorldSpec:
    """Return the specification of the world that was trained."""
    return WorldSpec(
        mode=recipe.format.mode,
        dit=recipe.spec,
        vae=replace(vae.encoder.spec, mean=WAN_MEAN, std=WAN_STD),
        vision=model.vision.spec,
        height=recipe.format.height,
        width=recipe.format.width,
        frames_per_block=recipe.format.frames_per_block,
        denoising_steps=recipe.denoising_steps,
        eta=ETA,
        frame_rate=recipe.format.frame_rate,
    )
