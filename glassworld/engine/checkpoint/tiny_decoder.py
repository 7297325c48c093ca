"""The tiny decoder in place of a world's own: read from its file; faster, less exact frames."""

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
from glassworld.specs import WAN_MEAN, WAN_STD, VAESpec

ENCODER_PREFIX = "encoder."  # the released file holds a tiny encoder too


def with_tiny_decoder(world: World, path: Path | None) -> World:
    """Return the same world, decoded by the weights in `path` (see `load_tiny_decoder`)."""
    own = world.networks
    decoder = load_tiny_decoder(path, world.spec.vae, own.device, own.decoder_dtype)
    networks = replace(own, decoder=decoder)
    return replace(world, networks=networks, name=tiny_name(world.name))


def tiny_name(world_name: str) -> str:
    """Return the name of a world that the tiny decoder decodes."""
    return f"{world_name} (tiny decoder)"


def load_tiny_decoder(
    path: Path | None, vae: VAESpec, device: torch.device, dtype: torch.dtype
) -> TinyDecoder:
    """Read the tiny decoder from `taew2_1.pth` or `.safetensors`.

    `path` None gives untrained weights of the released size, for measuring speed only. `vae`: of
    the world that it decodes. Raises `InputError` for a world whose latents are not Wan 2.1's,
    `CheckpointError` for a file that does not fit.
    """
    if (vae.latent_channels, vae.mean, vae.std) != (len(WAN_MEAN), WAN_MEAN, WAN_STD):
        raise InputError("tiny_decoder: supports Wan 2.1 latents only; leave it out for this world")
    with torch.device("meta"):
        decoder = TinyDecoder()
    tensors = _untrained(decoder) if path is None else read_tensors(path)
    own = {name: part for name, part in tensors.items() if not name.startswith(ENCODER_PREFIX)}
    convert = partial(channels_last, device=device, dtype=dtype)
    load_strictly(decoder, own, path or Path("untrained"), convert)
    decoder.eval().requires_grad_(False)
    return decoder


def _untrained(decoder: TinyDecoder) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(weight.shape, generator=draw) * weight[0].numel() ** -0.5
        for name, weight in decoder.state_dict().items()
    }
