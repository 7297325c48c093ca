"""Start a training from an exported world: the inverse of `export.py`.

Half-precision weights are enough to go on from; only the optimizers' moments and
what training alone asks the model begin anew.
"""

from dataclasses import replace
from pathlib import Path

import torch

from glassworld.engine.checkpoint.load import load_world
from glassworld.engine.world import Networks
from glassworld.errors import CheckpointError
from glassworld.specs import WAN_MEAN, WAN_STD, DiTSpec, VAESpec, VisionSpec
from glassworld.training.data.latents import fold
from glassworld.training.objectives.vae import VAE
from glassworld.training.objectives.world_model import WorldModel
from glassworld.training.recipes import Preset
from glassworld.training.weights.net2net import can_grow, grow


def check_start(folder: Path, preset: Preset) -> None:
    """Raise `InputError` unless a training of this preset can start from the world in `folder`."""
    networks = _networks(folder)
    _check_vae(folder, networks.encoder.spec, preset.vae.spec)
    _check_model(folder, networks, preset.dit.spec, preset.dit.vision)


def start_vae(vae: VAE, folder: Path) -> None:
    """Give `vae` the weights of an exported world, its latents of zero mean and unit variance.

    Raises:
        CheckpointError: the world's VAE has another size.
    """
    networks = _networks(folder)
    _check_vae(folder, networks.encoder.spec, vae.encoder.spec)
    vae.encoder.load_state_dict(networks.encoder.state_dict())
    vae.decoder.load_state_dict(networks.decoder.state_dict())
    fold(vae, torch.tensor(WAN_MEAN), torch.tensor(WAN_STD))


def start_model(model: WorldModel, folder: Path) -> None:
    """Give `model` the transformer and the image tower of an exported world.

    A transformer of fewer layers or hidden units is grown into this one (see `growth.py`).

    Raises:
        CheckpointError: they have a size that this one cannot come from.
    """
    networks = _networks(folder)
    _check_model(folder, networks, model.dit.spec, model.vision.spec)
    grow(networks.dit, model.dit)
    model.vision.load_state_dict(networks.vision.state_dict())


def _networks(folder: Path) -> Networks:
    return load_world(folder, device="cpu").networks


def _check_vae(folder: Path, start: VAESpec, wanted: VAESpec) -> None:
    if replace(start, mean=wanted.mean, std=wanted.std) != wanted:
        raise CheckpointError(f"{folder}: its VAE has another size than the preset's")


def _check_model(folder: Path, start: Networks, dit: DiTSpec, vision: VisionSpec) -> None:
    if not can_grow(start.dit.spec, dit) or start.vision.spec != vision:
        raise CheckpointError(f"{folder}: its transformer has another size than the preset's")
