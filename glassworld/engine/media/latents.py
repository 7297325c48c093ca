"""Latents as files: a safetensors file whose tensor is named `latents`."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from glassworld.errors import InputError
from glassworld.files import replacing
from glassworld.specs import WorldSpec

NAME = "latents"
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def save_latents(path: str | Path, latents: Tensor) -> None:
    """Write latents `[1, c, T, h, w]`; the file appears whole or not at all."""
    with replacing(Path(path)) as partial:
        save_file({NAME: latents.contiguous()}, partial)


def read_latents(source: Tensor | str | Path | None, spec: WorldSpec) -> Tensor | None:
    """Return initial latents from a tensor or a file, checked against the world; None for None."""
    if source is None:
        return None
    if isinstance(source, Tensor):
        name, latents = "initial_latents", source
    else:
        name, latents = str(source), _load(Path(source))
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
