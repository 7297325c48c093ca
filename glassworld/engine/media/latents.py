"""Latents as files: a safetensors file whose tensor is named `latents`."""

from __future__ import annotations

import json
import os
import struct
import tempfile
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from glassworld.errors import InputError
from glassworld.files import naming_full_disk, replacing
from glassworld.specs import WorldSpec

NAME = "latents"

LatentsSource = Tensor | npt.NDArray[Any] | str | Path
"""Latents `[1, c, T, h, w]`: a tensor, an array, or the path of a file that holds them."""

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


class LatentsWriter:
    """A file of latents, written block by block: `with LatentsWriter(path) as file: ...`.

    The blocks wait on disk, because the file has all frames of a channel together. It appears
    whole when the `with` ends; after an exception nothing is written.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._frame_shape: tuple[int, ...] = ()  # channels, rows, columns
        self._frames = 0

    def __enter__(self) -> Self:
        # Unbuffered, so that a full disk fails the write itself and nothing later.
        self._blocks = tempfile.TemporaryFile(dir=self._path.parent, buffering=0)
        return self

    def write(self, latents: Tensor) -> None:
        """Append float32 latents `[1, c, f, h, w]`; raise `DiskFullError` if there is no room."""
        frames = latents[0].transpose(0, 1).contiguous().numpy()
        self._frame_shape = frames.shape[1:]
        self._frames += len(frames)
        rest = memoryview(frames.tobytes())
        with naming_full_disk(self._path):
            while rest:
                rest = rest[self._blocks.write(rest) :]

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._blocks:
            if kind is None:
                with replacing(self._path) as partial, partial.open("wb") as file:
                    self._write_file(file)

    def _write_file(self, file: BinaryIO) -> None:
        """Write the safetensors file: the length of its header, the header, channel by channel."""
        channels, rows, columns = self._frame_shape
        plane = 4 * rows * columns
        size = plane * channels * self._frames
        shape = [1, channels, self._frames, rows, columns]
        entry = {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}
        header = json.dumps({NAME: entry}, separators=(",", ":")).encode()
        header += b" " * (-len(header) % 8)
        file.write(struct.pack("<Q", len(header)) + header)
        for channel in range(channels):
            for frame in range(self._frames):
                self._blocks.seek((frame * channels + channel) * plane)
                file.write(self._blocks.read(plane))


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
        name, latents = os.fspath(source), load_latents(Path(source))
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
            "; give latents of this world"
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
        raise InputError(f"{name}: holds numbers that are not finite; generate them again")
    return latents


def _from_array(array: npt.NDArray[Any]) -> Tensor:
    """Return a copy as a tensor; raise `InputError` for numbers that torch does not know."""
    try:
        return torch.from_numpy(np.array(array, order="C"))
    except TypeError:
        raise InputError(f"initial_latents: holds {array.dtype}; must be float32") from None


def load_latents(path: Path) -> Tensor:
    """Return the latents in a file, of any shape; raise `InputError` if it has none."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; initial latents are a safetensors file; name one")
    try:
        with safe_open(path, framework="pt") as file:
            if NAME not in file.keys():  # noqa: SIM118 (not a dictionary)
                raise InputError(
                    f"{path}: has no tensor named {NAME!r}; name a file that save_latents wrote"
                )
            latents: Tensor = file.get_tensor(NAME)
            return latents
    except SafetensorError as error:
        raise InputError(
            f"{path}: not a readable safetensors file ({error}); name one that save_latents wrote"
        ) from None
