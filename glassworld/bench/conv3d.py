"""The baseline: a world whose VAE runs on plain 3-D convolutions, channels first.

What a direct implementation does; the benchmark measures it beside ours in the same run, and a
test holds their frames against each other.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glassworld.engine.world import Networks, World
from glassworld.models.vae_convs import TAPS, CausalConv, Memory, unfold_taps


class Conv3dLayer(nn.Module):
    """A `CausalConv` by `conv3d`, with the same memory."""

    def __init__(self, layer: CausalConv) -> None:
        super().__init__()
        self.name = layer.name
        self.weight = nn.Parameter(unfold_taps(layer.weight, TAPS), requires_grad=False)
        self.bias = layer.bias

    def forward(self, x: Tensor, memory: Memory | None) -> Tensor:
        past = None if memory is None else memory.frames.get(self.name)
        if past is None:
            past = x.new_zeros(x.shape[0], TAPS - 1, *x.shape[2:])
        frames = torch.cat([past, x], 1)
        if memory is not None:
            memory.keep(self.name, frames[:, -(TAPS - 1) :])
        side = self.weight.shape[-1] // 2
        planes = frames.permute(0, 4, 1, 2, 3).contiguous()
        mixed = F.conv3d(planes, self.weight, self.bias, padding=(0, side, side))
        return mixed.permute(0, 2, 3, 4, 1).contiguous()


def with_conv3d(world: World) -> World:
    """The same world with every 3x3x3 convolution of its VAE unfolded."""
    own = world.networks
    encoder, decoder = copy.deepcopy(own.encoder), copy.deepcopy(own.decoder)
    for network in (encoder, decoder):
        for parent in network.modules():
            for name, layer in parent.named_children():
                if isinstance(layer, CausalConv) and layer.kernel_size == (3, 3):
                    setattr(parent, name, Conv3dLayer(layer))
    networks = Networks(own.dit, encoder, decoder, own.vision)
    return World(world.spec, networks, f"{world.name} (conv3d)")
