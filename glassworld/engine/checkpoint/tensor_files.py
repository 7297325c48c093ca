"""Files of tensors: read safely, whole or in shards; and their shapes without the tensors."""

from __future__ import annotations

import json
import pickle
import re
import struct
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from glassworld.errors import CheckpointError

Tensors = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]

T = TypeVar("T")

SAFETENSORS, INDEX = ".safetensors", ".safetensors.index.json"

STARTS = (b"PK\x03\x04", b"\x80")  # of what torch saves: a zip file, formerly a pickle
DAMAGED = (
    RuntimeError, EOFError, OSError, ValueError,
    LookupError, TypeError, AttributeError, AssertionError, OverflowError, struct.error,
)  # fmt: skip
"""What torch raises for a file that is cut short, or begins like one of its own and is not."""

LARGEST_HEADER = 100 * 2**20
"""Bytes of the largest header that safetensors allows."""

MOST_NESTED = 3
"""Levels of dictionaries around the tensors that are searched."""

OPTIMIZER = ("state", "param_groups")
"""The names in an optimizer's state, which is no checkpoint of a network."""

_SHARD = re.compile(r"(.+)-(\d+)-of-(\d+)\.(?:safetensors|bin)")


def read_tensors(path: Path) -> Tensors:
    """Return all tensors of a checkpoint, memory-mapped where the format allows.

    `path`: a .safetensors file, the .safetensors.index.json of several, or a .pth: of the tensors,
    or of a training's dictionary with one dictionary of tensors in it, such as "state_dict". Raises
    `CheckpointError` for a file that is missing, truncated, one shard of several, or a pickle of
    anything else, or of several such dictionaries.
    """
    if path.name.endswith(INDEX):
        return {
            name: tensor
            for shard, names in _shards(path)
            for name, tensor in _only(_read_safetensors(shard), names, shard).items()
        }
    _require_file(path)
    if path.suffix == SAFETENSORS:
        return _read_safetensors(path)
    return _read_pickle(path)


def read_shapes(path: Path) -> Shapes:
    """Return the shapes of a checkpoint's tensors; of safetensors, only the header is read."""
    if path.name.endswith(INDEX):
        return {
            name: shape
            for shard, names in _shards(path)
            for name, shape in _only(_header_shapes(shard), names, shard).items()
        }
    _require_file(path)
    if path.suffix == SAFETENSORS:
        return _header_shapes(path)
    return shapes(_read_pickle(path))


def shapes(tensors: Mapping[str, Tensor]) -> Shapes:
    """Return the shapes of tensors."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint file")
    shard = _SHARD.fullmatch(path.name)
    if shard and int(shard[3]) > 1:
        raise CheckpointError(
            f"{path}: one of {int(shard[3])} shards, not a whole checkpoint; name the index "
            f"{shard[1]}{INDEX} with all shards beside it"
        )


def _read_safetensors(path: Path) -> Tensors:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: truncated or not safetensors ({error})") from None


def _header_shapes(path: Path) -> Shapes:
    try:
        with path.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            if size > LARGEST_HEADER:
                raise ValueError("no header")
            header = json.loads(file.read(size))
        return {
            name: tuple(int(side) for side in entry["shape"])
            for name, entry in header.items()
            if name != "__metadata__"
        }
    except (*DAMAGED, RecursionError) as error:
        raise CheckpointError(
            f"{path}: truncated or not safetensors ({str(error).splitlines()[0]})"
        ) from None


def _shards(index: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield each file that an index names, with the names of its tensors."""
    if not index.is_file():
        raise CheckpointError(f"{index}: no such checkpoint file")
    try:
        weight_map = json.loads(index.read_bytes())["weight_map"]
        by_file: dict[str, list[str]] = {}
        for name, file in weight_map.items():
            if Path(file).name != file:
                raise ValueError(f"names {file!r}, which is not beside it")
            by_file.setdefault(file, []).append(name)
    except (*DAMAGED, RecursionError) as error:
        raise CheckpointError(f"{index}: not an index of shards ({error})") from None
    missing = [file for file in sorted(by_file) if not (index.parent / file).is_file()]
    if missing:
        raise CheckpointError(
            f"{index}: {len(missing)} of its {len(by_file)} shards are missing: {missing[0]}"
        )
    for file, names in sorted(by_file.items()):
        yield index.parent / file, names


def _only(tensors: Mapping[str, T], names: list[str], shard: Path) -> dict[str, T]:
    """Return the tensors of a shard that its index names."""
    for name in names:
        if name not in tensors:
            raise CheckpointError(f"{shard}: its index says that {name} is in it, but it is not")
    return {name: tensors[name] for name in names}


def _read_pickle(path: Path) -> Tensors:
    try:
        with path.open("rb") as file:
            if not file.read(4).startswith(STARTS):
                raise ValueError("neither a zip file nor a pickle")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of what is about to be refused below
            content = _load_mapped(path)
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path}: damaged or a pickle of more than tensors, refused because loading it could "
            "run code; save its state dict alone, best as safetensors"
        ) from None
    except DAMAGED as error:
        reason = str(error).splitlines()[0] if str(error) else "ended too early"
        raise CheckpointError(f"{path}: truncated or not a checkpoint ({reason})") from None
    choices = dict(_tensor_dictionaries(content, "", MOST_NESTED))
    if not choices:
        raise CheckpointError(f"{path}: not a plain dictionary of named tensors")
    if len(choices) > 1:
        raise CheckpointError(
            f"{path}: holds {len(choices)} dictionaries of tensors ({', '.join(sorted(choices))}); "
            "save the one to load alone, best as safetensors"
        )
    return next(iter(choices.values()))


def _tensor_dictionaries(content: object, name: str, levels: int) -> Iterator[tuple[str, Tensors]]:
    """Yield every dictionary of named tensors in what a training saved, by its dotted name."""
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        return
    if all(
        isinstance(tensor, Tensor) and tensor.layout is torch.strided for tensor in content.values()
    ):
        if content or not name:
            yield name, content
    elif levels and not (set(OPTIMIZER) <= content.keys()):
        for key, value in content.items():
            yield from _tensor_dictionaries(value, f"{name}.{key}".lstrip("."), levels - 1)


def _load_mapped(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError:  # the old format cannot be mapped
        return torch.load(path, map_location="cpu", weights_only=True)
