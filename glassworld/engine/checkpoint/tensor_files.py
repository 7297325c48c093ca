"""Files of tensors: read safely, whole or in shards; and their shapes without the tensors.

The format of a file is that of its content: tools give the same names to both.
"""

from __future__ import annotations

import json
import pickle
import re
import struct
import warnings
import zipfile
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from glassworld.errors import CheckpointError
from glassworld.file_signatures import describe_content, read_head

Tensors = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]

T = TypeVar("T")

SAFETENSORS, INDEX = ".safetensors", ".safetensors.index.json"
ANY_INDEX = ".index.json"
"""The end of the name of any index of shards, of safetensors or of pickles."""

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

_NUMPY_SCALAR = np.int64(0).__reduce__()[0]
TRAINING_TYPES: tuple[Any, ...] = (
    Namespace,
    type(Path()),
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("bool", "int32", "int64", "float32", "float64")),
    (_NUMPY_SCALAR, "numpy.core.multiarray.scalar"),  # by the name of NumPy 1
    (_NUMPY_SCALAR, "numpy._core.multiarray.scalar"),
)
"""What trainings keep beside the tensors, such as their arguments; reading it runs no code."""

_SHARD = re.compile(r"(.+)-(\d+)-of-(\d+)\.(safetensors|bin)")


def read_tensors(path: Path) -> Tensors:
    """Return all tensors of a checkpoint, memory-mapped where the format allows.

    `path`: a file of safetensors, or one that torch saved, of the tensors, or of a training's
    dictionary with one dictionary of tensors in it, such as "state_dict"; or the index.json of
    several such files. Raises `CheckpointError` for a file that is missing, truncated, one shard of
    several, or a pickle of anything else, or of several such dictionaries.
    """
    if path.name.endswith(ANY_INDEX):
        return _merged(path, _read_file, _equal)
    require_file(path)
    return _read_file(path)


def read_shapes(path: Path) -> Shapes:
    """Return the shapes of a checkpoint's tensors; of safetensors, only the header is read."""
    if path.name.endswith(ANY_INDEX):
        return _merged(path, _shapes_of_file, lambda one, other: one == other)
    require_file(path)
    return _shapes_of_file(path)


def shapes(tensors: Mapping[str, Tensor]) -> Shapes:
    """Return the shapes of tensors."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _read_file(path: Path) -> Tensors:
    return _read_safetensors(path) if _is_safetensors(path) else _read_pickle(path)


def _shapes_of_file(path: Path) -> Shapes:
    if _is_safetensors(path):
        return {name: tuple(entry["shape"]) for name, entry in _header(path)[1].items()}
    return shapes(_read_pickle(path))


def _is_safetensors(path: Path) -> bool:
    """Return whether a file holds safetensors, False if torch saved it; raise for anything else."""
    try:
        head = read_head(path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= LARGEST_HEADER:
        return True
    if head.startswith(STARTS):
        return False
    kind = describe_content(head)
    if kind is None and head.isascii() and head.decode().strip().isprintable():
        kind = f"a text that begins {head.decode().strip()!r:.40}"
    reason = f"is {kind}, not a checkpoint" if kind else "truncated or not a checkpoint"
    raise CheckpointError(f"{path}: {reason}")


def require_file(path: Path) -> None:
    """Raise `CheckpointError` if a checkpoint is missing, unfinished or one shard; say which."""
    if path.is_dir():
        raise CheckpointError(f"{path}: is a folder; name the checkpoint file in it")
    control = path.with_name(f"{path.name}.aria2")
    if not path.is_file() or control.exists():
        raise CheckpointError(f"{path}: {_why_missing(path)}")
    shard = _SHARD.fullmatch(path.name)
    if shard and int(shard[3]) > 1:
        raise CheckpointError(
            f"{path}: one of {int(shard[3])} shards, not a whole checkpoint; name the index "
            f"{shard[1]}.{shard[4]}{ANY_INDEX} with all shards beside it"
        )


_REFUSED = re.compile(r"GLOBAL (\S+) was not")

UNFINISHED = (".incomplete", ".part", ".partial", ".crdownload", ".download", ".aria2", ".tmp")
"""What programs append to the name of a file that they have not downloaded whole."""


def _why_missing(path: Path) -> str:
    """Return why a checkpoint is not there, as far as its folder tells."""
    if path.is_symlink():
        return f"links to {path.readlink()}, which is missing; download it again"
    unfinished = [end for end in UNFINISHED if path.with_name(path.name + end).exists()]
    if unfinished:
        return f"is not downloaded yet: {path.name}{unfinished[0]} is unfinished; download it again"
    siblings = path.parent.iterdir() if path.parent.is_dir() else ()
    shards = filter(None, (_SHARD.fullmatch(file.name) for file in siblings))
    of_this = sorted(shard[0] for shard in shards if path.name == f"{shard[1]}.{shard[4]}")
    if of_this:
        return (
            f"no such checkpoint file; shards of it are there, such as {of_this[0]}, but not their "
            f"index {path.name}{ANY_INDEX}"
        )
    return "no such checkpoint file"


def _read_safetensors(path: Path) -> Tensors:
    begin, header = _header(path)
    size, wanted = path.stat().st_size, begin + _data_bytes(path, header)
    if size < wanted:
        raise CheckpointError(
            f"{path}: truncated: {size:,} of its {wanted:,} bytes are there; download or copy it "
            "again"
        )
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        reason = str(error).removeprefix("Error while deserializing header: ")
        raise CheckpointError(
            f"{path}: damaged safetensors ({reason}); download it again"
        ) from None


def _header(path: Path) -> tuple[int, dict[str, Any]]:
    """Return where the data of safetensors begin, and the header's entry of each tensor."""
    try:
        with path.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            content = file.read(size)
            if len(content) < size:
                raise CheckpointError(f"{path}: truncated within its header; download it again")
            header = json.loads(content)
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        for entry in entries.values():
            entry["shape"] = [int(side) for side in entry["shape"]]
        return 8 + size, entries
    except CheckpointError:
        raise
    except (*DAMAGED, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"{path}: truncated or not safetensors ({reason}); download it again"
        ) from None


def _data_bytes(path: Path, header: Mapping[str, Any]) -> int:
    try:
        return max((int(entry["data_offsets"][1]) for entry in header.values()), default=0)
    except DAMAGED:
        raise CheckpointError(
            f"{path}: damaged safetensors (without offsets); download it again"
        ) from None


def _merged(
    index: Path, read: Callable[[Path], dict[str, T]], equal: Callable[[T, T], bool]
) -> dict[str, T]:
    """Return what all shards of an index hold; what two of them hold must be equal."""
    merged: dict[str, T] = {}
    for shard, names in _shards(index):
        content = read(shard)
        for name in names:
            if name not in content:
                raise CheckpointError(
                    f"{shard}: its index says that {name} is in it, but it is not"
                    "; download both again"
                )
        for name, value in content.items():
            if name in merged and not equal(merged[name], value):
                raise CheckpointError(
                    f"{shard}: {name} is in another shard too, and differs; remove one of them"
                )
            merged[name] = value
    return merged


def _equal(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors hold the same bytes."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return torch.equal(*(each.contiguous().flatten().view(torch.uint8) for each in (one, other)))


def _shards(index: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield each file that an index names, with the names of its tensors."""
    require_file(index)
    content = index.read_bytes()
    kind = describe_content(content[:1024])
    if kind is not None:
        raise CheckpointError(f"{index}: is {kind}, not an index of shards; name an index")
    try:
        weight_map = json.loads(content)["weight_map"]
        by_file: dict[str, list[str]] = {}
        for name, file in weight_map.items():
            if Path(file).name != file:
                raise ValueError(f"names {file!r}, which is not beside it")
            by_file.setdefault(file, []).append(name)
        if not by_file:
            raise ValueError("names no tensors")
    except (*DAMAGED, RecursionError) as error:
        raise CheckpointError(
            f"{index}: not an index of shards ({error}); download it again"
        ) from None
    missing = [file for file in sorted(by_file) if not (index.parent / file).is_file()]
    if missing:
        raise CheckpointError(
            f"{index}: {len(missing)} of its {len(by_file)} shards are missing: {missing[0]}"
            "; put all beside the index"
        )
    for file, names in sorted(by_file.items()):
        yield index.parent / file, names


def _read_pickle(path: Path) -> Tensors:
    content = _load_pickle(path)
    choices = dict(_tensor_dictionaries(content, "", MOST_NESTED))
    if len(choices) > 1:  # states of random numbers are dictionaries of integers
        choices = {
            name: tensors
            for name, tensors in choices.items()
            if any(tensor.is_floating_point() for tensor in tensors.values())
        }
    if not choices:
        raise CheckpointError(
            f"{path}: not a plain dictionary of named tensors; save the state dict alone"
        )
    if len(choices) > 1:
        raise CheckpointError(
            f"{path}: holds {len(choices)} dictionaries of tensors ({', '.join(sorted(choices))}); "
            "save the one to load alone, best as safetensors"
        )
    tensors = next(iter(choices.values()))
    for name, tensor in tensors.items():
        if tensor.is_meta:
            raise CheckpointError(
                f"{path}: {name} was saved from the meta device, without numbers"
                "; save it with its numbers"
            )
    return tensors


def _load_pickle(path: Path) -> object:
    """Return what torch saved, without running code from it; raise `CheckpointError`."""
    try:
        if read_head(path).startswith(b"PK") and not zipfile.is_zipfile(path):
            raise CheckpointError(
                f"{path}: truncated: the list at its end is missing; download or copy it again"
            )
        with warnings.catch_warnings(), torch.serialization.safe_globals(list(TRAINING_TYPES)):
            warnings.simplefilter("ignore")  # torch warns of what is about to be refused below
            return _load_mapped(path)
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        found = _REFUSED.search(str(error))
        what = f"holds {found[1]}" if found else "damaged or a pickle of more than tensors"
        raise CheckpointError(
            f"{path}: {what}, refused because loading it could run code; save its state dict "
            "alone, best as safetensors"
        ) from None
    except DAMAGED as error:
        reason = str(error).splitlines()[0].split(". ")[0] if str(error) else "ended too early"
        raise CheckpointError(
            f"{path}: truncated or not a checkpoint ({reason}); download it again"
        ) from None


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
    if path.suffix.lower() == SAFETENSORS:  # torch would believe the name
        with path.open("rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError:  # the old format cannot be mapped
        return torch.load(path, map_location="cpu", weights_only=True)
