"""Weights in another form, computed once and kept while they stay as they are."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Stamp = tuple[int, int]


class PackedWeights:
    """What a layer computes from a weight before it can use it.

    Kept between calls without gradients, and computed anew once the weight was written to or
    moved; with gradients it is part of the graph and computed every time.
    """

    def __init__(self) -> None:
        self._kept: dict[object, tuple[Stamp, Tensor]] = {}

    def __deepcopy__(self, _: object) -> PackedWeights:
        """A copied layer derives its own: what is laid out for oneDNN cannot be copied."""
        return PackedWeights()

    def get(self, weight: Tensor, make: Callable[[Tensor], Tensor], key: object = None) -> Tensor:
        """`make(weight)`; `key` tells several forms of a weight apart."""
        kept = self._kept.get(key)
        if torch.compiler.is_compiling():  # which knows no stamps: what warming up has left
            return make(weight) if kept is None else kept[1]
        if torch.is_grad_enabled():
            return make(weight)
        version = 0 if weight.is_inference() else weight._version  # those count no writes
        stamp = (weight.data_ptr(), version)
        if kept is None or kept[0] != stamp:
            kept = (stamp, make(weight))
            self._kept[key] = kept
        return kept[1]
