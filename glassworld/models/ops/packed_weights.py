"""Weights in another form, computed once and cached while the weight stays unchanged."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Stamp = tuple[int, int]
"""The address of a weight and its version counter."""


class PackedWeights:
    """A layer's cache of transformed weights, such as weights packed for oneDNN.

    Without gradients an entry is reused until its weight is written to or moved. With gradients
    the transformation is part of the graph and runs every time.
    """

    def __init__(self) -> None:
        self._entries: dict[object, tuple[Stamp, Tensor]] = {}

    def __deepcopy__(self, _: object) -> PackedWeights:
        """Return an empty cache: a tensor that oneDNN has packed cannot be copied."""
        return PackedWeights()

    def get(self, weight: Tensor, pack: Callable[[Tensor], Tensor], key: object = None) -> Tensor:
        """Return `pack(weight)`; `key` tells several forms of one weight apart."""
        entry = self._entries.get(key)
        if torch.compiler.is_compiling():  # it cannot trace stamps: use what warming up has left
            return pack(weight) if entry is None else entry[1]
        if torch.is_grad_enabled():
            return pack(weight)
        version = 0 if weight.is_inference() else weight._version  # inference tensors have none
        stamp = (weight.data_ptr(), version)
        if entry is None or entry[0] != stamp:
            entry = (stamp, pack(weight))
            self._entries[key] = entry
        return entry[1]
