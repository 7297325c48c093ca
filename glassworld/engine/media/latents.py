"""Latents as files: a safetensors file whose tensor is named `latents`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from glassworld.errors import InputError
from glassworld.files import replacing
from glassworld.specs import WorldSpec

NAME = "latents"

LatentsSource = Tensor | npt.NDArray[Any] | str | Path
"""Latents `[1, c, T, h, w]`: a tensor, an array, or the path of a file that holds them."""

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def save_latents(path: str | Path, latents: Tensor) -> None:
    """Write latents `[1, c, T, h, w]`; the file appears whole or not at all."""
    with replacing(Path(path)) as partial:
        save_file({NAME: latents.contiguous()}, partial)


def read_latents(source: LatentsSource | None, spec: WorldSpec) -> Tensor | None:
    """Return initial latents as a tensor, checked against the world; None for None."""
    if source is None:
        return None
    name = "initial_latents"
    if isinstance(source, Tensor):
        latents = source.detach()
    elif isinstance(source, np.ndarray):
        latents = _from_array(source)
    elif isinstance(source, str | os.PathLike):
        name, latents = os.fspath(source), _load(Path(source))
    else:
        kind = type(source).__name__
        raise InputError(f"{name}: give a tensor, a NumPy array or a path, not {kind}")
    channels, (rows, columns) = spec.vae.latent_channels, spec.latent_size
    fits = latents.dim() == 5 and (1, channels, rows, columns) == (
        *latents.shape[:2],
        *latents.shape[3:],
    )
    if not fits:
        raise InputError(
            f"{name}: shape {list(latents.shape)}, but this world's latents are "
            f"[1, {channels}, T, {rows}, {columns}]"
        )
    if latents.shape[2] == 0 or latents.shape[2] % spec.frames_per_block:
        raise InputError(
            f"{name}: {latents.shape[2]} latent frames; must be a positive multiple of the "
            f"{spec.frames_per_block} of a block"
        )
    if latents.dtype not in DTYPES:
        raise InputError(
            f"{name}: holds {latents.dtype}; must be one of {', '.join(map(str, DTYPES))}"
        )
    if not torch.isfinite(latents.float()).all():
        raise InputError(f"{name}: holds numbers that are not finite")
    return latents


def _from_array(array: npt.NDArray[Any]) -> Tensor:
    """Return a copy as a tensor; raise `InputError` for numbers that torch does not know."""
    try:
        return torch.from_numpy(np.array(array, order="C"))
    except TypeError:
        raise InputError(f"initial_latents: holds {array.dtype}; must be float32") from None


def _load(path: Path) -> Tensor:
    if not path.is_file():
        raise InputError(f"{path}: no such file; initial latents are a safetensors file")
    try:
        with safe_open(path, framework="pt") as file:
            if NAME not in file.keys():  # noqa: SIM118 (not a dictionary)
                raise InputError(f"{path}: has no tensor named {NAME!r}")
            latents: Tensor = file.get_tensor(NAME)
            return latents
    except SafetensorError as error:
        raise InputError(f"{path}: not a readable safetensors file ({error})") from None
