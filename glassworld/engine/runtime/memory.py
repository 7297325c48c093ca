"""Memory: what the allocators keep, what a session takes, and whether there is enough."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from glassworld.engine.runtime.device import Precision
from glassworld.errors import InputError
from glassworld.specs import WorldSpec

if TYPE_CHECKING:
    from glassworld.engine.networks import Networks

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Have the C library keep the memory that a block frees for the next one.

    Left to itself glibc gives large tensors back to the system, and every block pays for their
    pages again: thousands of faults, a tenth of its time. Other C libraries are left alone.
    """
    if sys.platform != "linux":
        return
    library, most = ctypes.CDLL(None), 2**31 - 1
    if hasattr(library, "mallopt"):  # musl has none
        library.mallopt(M_MMAP_THRESHOLD, most)
        library.mallopt(M_TRIM_THRESHOLD, most)
        library.mallopt(M_TOP_PAD, 64 * 2**20)


ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")  # the new name and the old one


def enlarge_device_memory() -> None:
    """Have torch grow its segments of GPU memory instead of adding more of fixed sizes.

    The transformer can then use what the decoder freed: a released world's peak falls by 1 GB.
    Call it before CUDA is set up, which reads the environment; a setting already there stays.
    Torch can grow segments on Linux only, and warns elsewhere.
    """
    if sys.platform == "linux" and not any(name in os.environ for name in ALLOCATOR):
        os.environ[ALLOCATOR[0]] = "expandable_segments:True"


def session_bytes(spec: WorldSpec, size: int) -> int:
    """Return the bytes of a session's key and value rings, at `size` bytes a number."""
    dit, action = spec.dit, spec.dit.action
    per_frame = dit.num_layers * spec.tokens_per_frame * dit.dim
    per_frame += len(action.layers) * action.keyboard_width
    if action.mouse_dim:
        per_frame += len(action.layers) * spec.tokens_per_frame * action.mouse_width
    return 2 * size * dit.window * per_frame


def check_memory(
    spec: WorldSpec, networks: Networks, device: torch.device, precision: Precision
) -> None:
    """Raise `InputError` if the weights and one session cannot fit into free memory."""
    parts = (
        (networks.dit, precision.dit),
        (networks.vision, precision.dit),
        (networks.encoder, precision.vae),
        (networks.decoder, precision.vae),
    )
    needed = session_bytes(spec, precision.dit.itemsize) + sum(
        weight.numel() * dtype.itemsize for part, dtype in parts for weight in part.parameters()
    )
    free = _free_bytes(device)
    if free is not None and needed > free:
        raise InputError(
            f"too little memory on {device}: this world needs {needed / 1e9:.1f} GB for weights "
            f"and one session, {free / 1e9:.1f} GB are free; try dtype bfloat16 or another device"
        )


def _free_bytes(device: torch.device) -> int | None:
    """Return the free memory of a device; None where the system does not tell."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    meminfo = Path("/proc/meminfo")
    if not meminfo.is_file():
        return None
    for line in meminfo.read_text(encoding="utf-8").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None
