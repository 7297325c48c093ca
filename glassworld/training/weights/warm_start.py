"""Start a training from the weights of an exported world.

Half-precision weights are enough. Only the moments of the optimizers and the auxiliary head of
locations, which training alone uses, start over.
"""

from dataclasses import replace
from pathlib import Path

import torch

from glassworld.engine.checkpoint.load import load_world
from glassworld.engine.world import Networks
from glassworld.errors import CheckpointError
from glassworld.specs import WAN_MEAN, WAN_STD, DiTSpec, VAESpec, VisionSpec
from glassworld.training.objectives.vae import VAE, rescale_latents
from glassworld.training.objectives.world_model import WorldModel
from glassworld.training.recipes import TrainingRecipe
from glassworld.training.weights.net2net import can_grow, grow


def check_warm_start(folder: Path, recipe: TrainingRecipe) -> None:
    """Raise `InputError` unless training by `recipe` can start from the world in `folder`."""
    networks = _load_networks(folder)
    _check_vae(folder, networks.encoder.spec, recipe.vae.spec)
    _check_model(folder, networks, recipe.dit.spec, recipe.dit.vision)


def warm_start_vae(vae: VAE, folder: Path) -> None:
    """Copy the weights of an exported world; its latents have zero mean and unit variance.

    Raises
    ------
    CheckpointError
        The world's VAE has another size.
    """
    networks = _load_networks(folder)
    _check_vae(folder, networks.encoder.spec, vae.encoder.spec)
    vae.encoder.load_state_dict(networks.encoder.state_dict())
    vae.decoder.load_state_dict(networks.decoder.state_dict())
    rescale_latents(vae, torch.tensor(WAN_MEAN), torch.tensor(WAN_STD))


def warm_start_model(model: WorldModel, folder: Path) -> None:
    """Copy the transformer and the image tower of an exported world.

    A transformer with fewer layers or hidden units is grown into this one (see `net2net.py`).

    Raises
    ------
    CheckpointError
        The sizes do not allow it.
    """
    networks = _load_networks(folder)
    _check_model(folder, networks, model.dit.spec, model.vision.spec)
    grow(networks.dit, model.dit)
    model.vision.load_state_dict(networks.vision.state_dict())


def _load_networks(folder: Path) -> Networks:
    return load_world(folder, device="cpu").networks


def _check_vae(folder: Path, start: VAESpec, wanted: VAESpec) -> None:
    if replace(start, mean=wanted.mean, std=wanted.std) != wanted:
        raise CheckpointError(f"{folder}: its VAE has another size than the preset's")


def _check_model(folder: Path, start: Networks, dit: DiTSpec, vision: VisionSpec) -> None:
    if not can_grow(start.dit.spec, dit) or start.vision.spec != vision:
        raise CheckpointError(f"{folder}: its transformer has another size than the preset's")
