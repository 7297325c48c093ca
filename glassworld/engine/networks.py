"""The networks of a world, with their weights."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from glassworld.errors import InputError
from glassworld.models.transformer.dit import DiT
from glassworld.models.vae.encoder import VAEEncoder
from glassworld.models.vae.streaming import StreamingDecoder
from glassworld.models.vision import VisionTower

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Networks:
    """A world's transformer, the two halves of its VAE, and its image tower."""

    dit: DiT
    encoder: VAEEncoder
    decoder: StreamingDecoder
    vision: VisionTower

    @property
    def device(self) -> torch.device:
        """The device that holds the weights."""
        return self.dit.patch_embedding.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The type that the transformer computes in."""
        return self.dit.patch_embedding.weight.dtype

    @property
    def decoder_dtype(self) -> torch.dtype:
        """The type that latents are decoded in."""
        return next(self.decoder.parameters()).dtype

    @property
    def compiled(self) -> bool:
        """Whether layers or the decoder are compiled."""
        return self.dit.compiled or self.decoder.compiled

    def copy(self) -> Networks:
        """Return networks with the same weights but layers of their own.

        To change layers (quantize, fuse, compile) without changing the world that they belong to.
        Raises `InputError` if they are compiled: compiled code stays bound to the old layers.
        """
        if self.compiled:
            raise InputError("accelerate: this world is compiled already; load it again")
        return Networks(
            _share_weights(self.dit), self.encoder, _share_weights(self.decoder), self.vision
        )


def _share_weights(network: Network) -> Network:
    """Copy a network's modules, but not the tensors that they hold."""
    tensors = [*network.parameters(), *network.buffers()]
    return copy.deepcopy(network, {id(tensor): tensor for tensor in tensors})
