"""Start a training from the weights of a world, embedded, released or trained here.

Half-precision weights are enough. Only the moments of the optimizers and the auxiliary head of
locations, which training alone uses, start over.
"""

from dataclasses import replace

import torch

from glassworld.engine.checkpoint.load import load_from
from glassworld.engine.checkpoint.locate import locate_world
from glassworld.engine.checkpoint.options import LoadOptions
from glassworld.engine.networks import Networks
from glassworld.errors import CheckpointError, InputError
from glassworld.specs import WAN_MEAN, WAN_STD, WorldSpec
from glassworld.training.objectives.vae import VAE, rescale_latents
from glassworld.training.objectives.world_model import ETA, WorldModel
from glassworld.training.recipes import TrainingRecipe
from glassworld.training.sources.source import WorldFormat
from glassworld.training.weights.net2net import can_grow, grow


def start_spec(options: LoadOptions) -> WorldSpec:
    """Return the spec of a world to start from, but for the sizes of its VAE and image tower.

    Its weights are not read yet.

    Raises
    ------
    InputError
        There is no such world, or training does not sample as it does.
    """
    spec = locate_world(options).spec
    supported = {"timestep_shift": 5.0, "warp_steps": True, "eta": ETA, "context_noise": 0.0}
    found = {**{name: getattr(spec, name) for name in supported}, "sink_size": spec.dit.sink}
    for name, value in {**supported, "sink_size": 0}.items():
        if found[name] != value:
            raise CheckpointError(
                f"{options.world}: its {name} is {found[name]}, and worlds are trained with "
                f"{value}; start from another world"
            )
    return spec


def check_start_mode(options: LoadOptions, spec: WorldSpec, mode: str) -> None:
    """Raise `CheckpointError` unless a world to start from has the mode of the episodes."""
    if spec.mode != mode:
        raise CheckpointError(
            f"{options.world}: its mode is {spec.mode}, but the episodes are of mode {mode}; "
            "start from another world, or from none"
        )


def check_start_frames(options: LoadOptions, spec: WorldSpec, format: WorldFormat) -> None:
    """Raise `CheckpointError` unless a world has the frames of a source.

    The size of a Gymnasium environment's frames can be set in its mapping.
    """
    own = (spec.height, spec.width, spec.frame_rate)
    if own != (format.height, format.width, format.frame_rate):
        raise CheckpointError(
            f"{options.world}: its frames are {spec.width}x{spec.height} at {spec.frame_rate} a "
            f"second, those of the source {format.width}x{format.height} at {format.frame_rate}; "
            f"start from another world, or set size: [{spec.height}, {spec.width}] in a mapping"
        )


def check_lora_rank(options: LoadOptions, spec: WorldSpec, rank: int) -> None:
    """Raise `InputError` for a rank that no matrix of a world's transformer can have."""
    if rank > spec.dit.dim:
        raise InputError(
            f"lora is {rank}: the transformer of {options.world} is {spec.dit.dim} wide; choose a "
            f"rank of at most {spec.dit.dim}, or 0 to train all weights"
        )


def load_start(options: LoadOptions, recipe: TrainingRecipe) -> tuple[TrainingRecipe, Networks]:
    """Load a world to start from, on the CPU.

    Returns
    -------
    The recipe, with the sizes of the world unless its transformer can grow into the recipe's, and
    the networks.

    Raises
    ------
    InputError
        There is no such world, or it has another mode.
    """
    world = load_from(replace(options, device="cpu", dtype="float32", vae_compile_mode="none"))
    networks, spec = world.networks, world.spec
    check_start_mode(options, spec, recipe.dit.format.mode)
    wanted, own = recipe.vae.spec, networks.encoder.spec
    grows = (
        not recipe.lora
        and replace(own, mean=wanted.mean, std=wanted.std) == wanted
        and networks.vision.spec == recipe.dit.vision
        and can_grow(networks.dit.spec, recipe.dit.spec)
    )
    dit = recipe.dit
    if spec.frames_per_block == dit.format.frames_per_block:
        dit = replace(dit, denoising_steps=spec.denoising_steps)
    if not grows:
        dit = replace(dit, start=spec)
        recipe = replace(recipe, vae=replace(recipe.vae, start=own))
    return replace(recipe, dit=dit), networks


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
