"""Grow a transformer into a larger one that computes the same (Net2Net: Chen et al., 2016).

New layers lie between the old ones and add nothing to the tokens at first. New hidden units of the
feed-forward networks are read with weight zero. From there on all weights are trained.
"""

from dataclasses import replace

import torch
from torch import nn

from glassworld.models.transformer.dit import DiT
from glassworld.models.transformer.layer import Layer
from glassworld.specs import DiTSpec


def can_grow(small: DiTSpec, large: DiTSpec) -> bool:
    """Tell whether only layers and hidden units differ, and neither number shrinks."""
    if small.num_layers > large.num_layers or small.ffn_dim > large.ffn_dim:
        return False
    return large == replace(small, num_layers=large.num_layers, ffn_dim=large.ffn_dim)


def grown_layer_indices(small: DiTSpec, large: DiTSpec) -> list[int]:
    """Return the new index of each old layer.

    Layers with action modules stay first. New layers lie evenly before the others.
    """
    with_actions = len(small.action.layers)
    others, added = small.num_layers - with_actions, large.num_layers - small.num_layers
    new_before = [-(-(index + 1) * added // others) for index in range(others)]
    return [
        *range(with_actions),
        *(with_actions + index + new_before[index] for index in range(others)),
    ]


@torch.no_grad()
def grow(small: DiT, large: DiT) -> None:
    """Make `large`, as initialized, compute what `small` computes (see `can_grow`)."""
    for name, part in small.named_children():
        if part is not small.blocks:
            getattr(large, name).load_state_dict(part.state_dict())
    indices = grown_layer_indices(small.spec, large.spec)
    for index, layer in enumerate(large.blocks):
        assert isinstance(layer, Layer)
        if index in indices:
            old = small.blocks[indices.index(index)]
            assert isinstance(old, Layer)
            _widen(old, layer)
        else:
            _zero_outputs(layer)


def _widen(old: Layer, layer: Layer) -> None:
    """Copy the old weights; read the new hidden units with weight zero."""
    weights = old.state_dict()
    first, last = layer.ffn[0], layer.ffn[-1]
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    hidden = len(weights["ffn.0.bias"])
    for name, wide in (("ffn.0.weight", first.weight), ("ffn.0.bias", first.bias)):
        weights[name] = torch.cat([weights[name], wide[hidden:]])
    unread = torch.zeros_like(last.weight[:, hidden:])
    weights["ffn.2.weight"] = torch.cat([weights["ffn.2.weight"], unread], 1)
    layer.load_state_dict(weights)


def _zero_outputs(layer: Layer) -> None:
    """Make a layer add nothing to the tokens."""
    last = layer.ffn[-1]
    assert isinstance(last, nn.Linear)
    for output in (layer.self_attn.o, layer.cross_attn.o, last):
        nn.init.zeros_(output.weight)
        nn.init.zeros_(output.bias)
