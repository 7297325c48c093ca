"""A world with the tiny decoder in place of its own: quicker pictures, less exact ones."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from glassworld.engine.checkpoint.tensor_files import read_tensors
from glassworld.engine.checkpoint.tensor_names import channels_last, load_strictly
from glassworld.engine.world import World
from glassworld.errors import InputError
from glassworld.models.vae.tiny_decoder import TinyDecoder
from glassworld.specs import WAN_MEAN, WAN_STD

ENCODER_PREFIX = "encoder."  # the released file holds a tiny encoder too


def with_tiny_decoder(world: World, path: Path | None) -> World:
    """The same world, decoded by the weights in `path` (`taew2_1.pth` or `.safetensors`).

    `path` None gives untrained weights of the released size, for measuring speed only. Raises
    `InputError` for a world whose latents are not Wan 2.1's, `CheckpointError` for a file that
    does not fit.
    """
    vae = world.spec.vae
    if (vae.latent_channels, vae.mean, vae.std) != (len(WAN_MEAN), WAN_MEAN, WAN_STD):
        raise InputError(f"{world.name}: the tiny decoder knows the latents of Wan 2.1 alone")
    with torch.device("meta"):
        decoder = TinyDecoder()
    tensors = _untrained(decoder) if path is None else read_tensors(path)
    own = {name: part for name, part in tensors.items() if not name.startswith(ENCODER_PREFIX)}
    convert = partial(channels_last, device=world.device, dtype=world.pipeline.decoder_dtype)
    load_strictly(decoder, own, path or Path("untrained"), convert)
    decoder.eval().requires_grad_(False)
    name = f"{world.name} (tiny decoder)"
    return World(world.spec, replace(world.networks, decoder=decoder), name, world.note)


def _untrained(decoder: TinyDecoder) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(weight.shape, generator=draw) * weight[0].numel() ** -0.5
        for name, weight in decoder.state_dict().items()
    }
