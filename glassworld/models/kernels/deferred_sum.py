"""Sums that one part of a network leaves to the kernel of the next part."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor


class DeferredSum(ABC):
    """A tensor in addends that are not added yet.

    The kernel that reads it adds them on the way, which saves a pass over the memory.
    """

    @abstractmethod
    def add_up(self) -> Tensor:
        """Return the sum; the addends may be overwritten by it."""


def materialize(x: Tensor | DeferredSum) -> Tensor:
    """Return the tensor itself, with nothing left to add."""
    return x if isinstance(x, Tensor) else x.add_up()
