"""The baseline: a world whose VAE does its convolutions directly, channels first.

Every 3x3x3 convolution by `conv3d`, every upsampling by repeating pixels and a convolution over
them, all in the weights' precision (float32 on a CPU); the transformer as it is written. The
benchmark measures it beside ours in the same run, and a test holds their frames against each
other.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glassworld.engine.world import Networks, World
from glassworld.models.vae_convs import TAPS, CausalConv, Memory, unfold_taps
from glassworld.models.vae_layers import Upsample


class Conv3dLayer(nn.Module):
    """A `CausalConv` by `conv3d`. Its memory and what it returns lie channels first."""

    def __init__(self, layer: CausalConv) -> None:
        super().__init__()
        self.name = layer.name
        self.weight = nn.Parameter(unfold_taps(layer.weight, TAPS), requires_grad=False)
        self.bias = layer.bias

    def forward(self, x: Tensor, memory: Memory | None) -> Tensor:
        planes = x.permute(0, 4, 1, 2, 3).contiguous()
        past = None if memory is None else memory.frames.get(self.name)
        if past is None:
            past = planes.new_zeros(*planes.shape[:2], TAPS - 1, *planes.shape[3:])
        planes = torch.cat([past, planes], 2)
        if memory is not None:
            memory.keep(self.name, planes[:, :, -(TAPS - 1) :])
        side = self.weight.shape[-1] // 2
        mixed = F.conv3d(planes, self.weight, self.bias, padding=(0, side, side))
        return mixed.permute(0, 2, 3, 4, 1)


class RepeatingUpsample(nn.Module):
    """An `Upsample` by nearest interpolation and a convolution over its result."""

    def __init__(self, layer: Upsample) -> None:
        super().__init__()
        self.weight = nn.Parameter(layer.conv.weight.contiguous(), requires_grad=False)
        self.bias, self.time_conv = layer.conv.bias, layer.time_conv

    def forward(self, x: Tensor, memory: Memory | None) -> Tensor:
        if self.time_conv is not None:
            x = self.time_conv(x, memory)
        pictures = x.flatten(0, 1).permute(0, 3, 1, 2).contiguous()
        large = F.interpolate(pictures, scale_factor=2, mode="nearest")
        mixed = F.conv2d(large, self.weight, self.bias, padding=1)
        return mixed.permute(0, 2, 3, 1).view(*x.shape[:2], *large.shape[2:], -1)


def with_conv3d(world: World) -> World:
    """The same world, done directly; its transformer shares the weights and nothing else."""
    own = world.networks
    encoder, decoder = copy.deepcopy(own.encoder), copy.deepcopy(own.decoder)
    for network in (encoder, decoder):
        for parent in list(network.modules()):
            for name, layer in parent.named_children():
                if isinstance(layer, CausalConv) and layer.kernel_size == (3, 3):
                    setattr(parent, name, Conv3dLayer(layer))
                elif isinstance(layer, Upsample):
                    setattr(parent, name, RepeatingUpsample(layer))
    dit = copy.deepcopy(own.dit, {id(weight): weight for weight in own.dit.parameters()})
    networks = Networks(dit, encoder, decoder, own.vision)
    return World(world.spec, networks, f"{world.name} (conv3d)")
