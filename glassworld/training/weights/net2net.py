"""A larger transformer that begins by doing what a smaller one does (Net2Net: Chen et al., 2016).

New layers lie between the old ones and write nothing into the tokens yet; new hidden units of the
feed-forward networks are read with weight zero. From there on everything learns.
"""

from dataclasses import replace

import torch
from torch import nn

from glassworld.models.transformer.dit import DiT
from glassworld.models.transformer.layer import Layer
from glassworld.specs import DiTSpec


def can_grow(small: DiTSpec, large: DiTSpec) -> bool:
    """Whether the sizes differ in layers and feed-forward networks alone, and none is smaller."""
    if small.num_layers > large.num_layers or small.ffn_dim > large.ffn_dim:
        return False
    return large == replace(small, num_layers=large.num_layers, ffn_dim=large.ffn_dim)


def grown_places(small: DiTSpec, large: DiTSpec) -> list[int]:
    """Where each old layer goes: those with actions stay first, new ones lie evenly before the
    others."""
    acting = len(small.action.layers)
    free, added = small.num_layers - acting, large.num_layers - small.num_layers
    before = [-(-(index + 1) * added // free) for index in range(free)]
    return [*range(acting), *(acting + index + before[index] for index in range(free))]


@torch.no_grad()
def grow(small: DiT, large: DiT) -> None:
    """Have `large`, as it was made, do what `small` does (see `can_grow`)."""
    for name, part in small.named_children():
        if part is not small.blocks:
            getattr(large, name).load_state_dict(part.state_dict())
    places = grown_places(small.spec, large.spec)
    for index, layer in enumerate(large.blocks):
        assert isinstance(layer, Layer)
        if index in places:
            old = small.blocks[places.index(index)]
            assert isinstance(old, Layer)
            _widen(old, layer)
        else:
            _hush(layer)


def _widen(old: Layer, layer: Layer) -> None:
    """The old layer's weights; what is new of the hidden units is not listened to."""
    weights = old.state_dict()
    first, last = layer.ffn[0], layer.ffn[-1]
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    hidden = len(weights["ffn.0.bias"])
    for name, grown in (("ffn.0.weight", first.weight), ("ffn.0.bias", first.bias)):
        weights[name] = torch.cat([weights[name], grown[hidden:]])
    silent = torch.zeros_like(last.weight[:, hidden:])
    weights["ffn.2.weight"] = torch.cat([weights["ffn.2.weight"], silent], 1)
    layer.load_state_dict(weights)


def _hush(layer: Layer) -> None:
    """Let a layer write nothing into the tokens."""
    last = layer.ffn[-1]
    assert isinstance(last, nn.Linear)
    for output in (layer.self_attn.o, layer.cross_attn.o, last):
        nn.init.zeros_(output.weight)
        nn.init.zeros_(output.bias)
