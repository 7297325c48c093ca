"""Copies between the host and a device that nobody waits for."""

from __future__ import annotations

import torch
from torch import Tensor


class HostCopy:
    """A tensor on its way to the host while the device goes on with later work."""

    def __init__(self, source: Tensor) -> None:
        self._arrived: torch.cuda.Event | None = None
        self._tensor = source
        if source.device.type == "cuda":
            self._tensor = torch.empty(source.shape, dtype=source.dtype, pin_memory=True)
            self._tensor.copy_(source, non_blocking=True)
            self._arrived = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            self._arrived.record(torch.cuda.current_stream(source.device))

    def wait(self, rows: slice = slice(None)) -> Tensor:
        """Wait for the tensor and return it, or those `rows` of it."""
        if self._arrived is None:
            return self._tensor[rows]
        self._arrived.synchronize()
        return self._tensor[rows].clone()  # frees the pinned memory for the next block


def to_device(x: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Move `x` to the device and type, without waiting for the device.

    Torch copies from pageable memory only once the device is done with its work, and converts
    types by way of such memory.
    """
    if device.type == "cuda" and x.device.type == "cpu":
        x = x.to(dtype).pin_memory()
    return x.to(device, dtype, non_blocking=True)
