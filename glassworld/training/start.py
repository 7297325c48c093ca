"""Start a training from an exported world: the inverse of `export.py`.

Half-precision weights are enough to go on from; only the optimizers' moments and
what training alone asks the model begin anew.
"""

from pathlib import Path

import torch

from glassworld.engine.loading import load_world
from glassworld.errors import CheckpointError
from glassworld.specs import WAN_MEAN, WAN_STD
from glassworld.training.forcing import WorldModel
from glassworld.training.growth import can_grow, grow
from glassworld.training.latents import fold
from glassworld.training.vae import VAE


def start_vae(vae: VAE, folder: Path) -> None:
    """Give `vae` the weights of an exported world, its latents of zero mean and unit variance.

    Raises:
        CheckpointError: the world's VAE has another size.
    """
    networks = load_world(folder / "inference.yaml", None, folder).networks
    if networks.encoder.spec.stage_widths != vae.encoder.spec.stage_widths:
        raise CheckpointError(f"{folder}: its VAE has another size than the preset's")
    vae.encoder.load_state_dict(networks.encoder.state_dict())
    vae.decoder.load_state_dict(networks.decoder.state_dict())
    fold(vae, torch.tensor(WAN_MEAN), torch.tensor(WAN_STD))


def start_model(model: WorldModel, folder: Path) -> None:
    """Give `model` the transformer and the image tower of an exported world.

    A transformer of fewer layers or hidden units is grown into this one (see `growth.py`).

    Raises:
        CheckpointError: they have a size that this one cannot come from.
    """
    networks = load_world(folder / "inference.yaml", None, folder).networks
    if not can_grow(networks.dit.spec, model.dit.spec) or networks.vision.spec != model.vision.spec:
        raise CheckpointError(f"{folder}: its transformer has another size than the preset's")
    grow(networks.dit, model.dit)
    model.vision.load_state_dict(networks.vision.state_dict())
