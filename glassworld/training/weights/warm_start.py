"""Start a training from the weights of an exported world.

Half-precision weights are enough. Only the moments of the optimizers and the auxiliary head of
locations, which training alone uses, start over.
"""

from dataclasses import replace

import torch

from glassworld.engine.checkpoint.load import load_from
from glassworld.engine.checkpoint.options import LoadOptions
from glassworld.engine.networks import Networks
from glassworld.errors import CheckpointError
from glassworld.specs import WAN_MEAN, WAN_STD
from glassworld.training.objectives.vae import VAE, rescale_latents
from glassworld.training.objectives.world_model import WorldModel
from glassworld.training.recipes import TrainingRecipe
from glassworld.training.weights.net2net import can_grow, grow


def load_start(options: LoadOptions, recipe: TrainingRecipe) -> Networks:
    """Load the networks of a world that training by `recipe` can start from, on the CPU.

    Raises
    ------
    InputError
        There is no such world.
    CheckpointError
        Its mode or its VAE is another one, or its transformer cannot grow into the recipe's.
    """
    world = load_from(replace(options, device="cpu", vae_compile_mode="none"))
    networks, mode = world.networks, recipe.dit.format.mode
    if world.spec.mode != mode:
        raise CheckpointError(
            f"{world.name}: its mode is {world.spec.mode}, but the episodes are of mode {mode}; "
            "start from another world, or from none"
        )
    wanted, spec = recipe.vae.spec, networks.encoder.spec
    if replace(spec, mean=wanted.mean, std=wanted.std) != wanted:
        raise CheckpointError(f"{options.world}: its VAE has another size than the preset's")
    same_vision = networks.vision.spec == recipe.dit.vision
    if not (same_vision and can_grow(networks.dit.spec, recipe.dit.spec)):
        raise CheckpointError(
            f"{options.world}: its transformer has another size than the preset's"
        )
    return networks


def warm_start_vae(vae: VAE, start: Networks) -> None:
    """Copy the weights of a world's VAE; its latents have zero mean and unit variance."""
    vae.encoder.load_state_dict(start.encoder.state_dict())
    vae.decoder.load_state_dict(start.decoder.state_dict())
    rescale_latents(vae, torch.tensor(WAN_MEAN), torch.tensor(WAN_STD))


def warm_start_model(model: WorldModel, start: Networks) -> None:
    """Copy a world's transformer and image tower.

    A transformer with fewer layers or hidden units is grown into this one (see `net2net.py`).
    """
    grow(start.dit, model.dit)
    model.vision.load_state_dict(start.vision.state_dict())
