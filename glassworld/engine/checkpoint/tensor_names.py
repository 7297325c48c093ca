"""Checkpoint files: reading them safely, their tensor names and ours, loading strictly.

Released files keep Wan's and CLIP's names. Ours differ where a layer is fused (queries, keys and
values in one product), folded (convolutions over taps) or better named; the rules below say how,
and work both ways.
"""

from __future__ import annotations

import pickle
import re
import struct
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from glassworld.errors import CheckpointError
from glassworld.models.vae.causal_conv import TAPS, fold_taps, unfold_taps

Tensors = dict[str, Tensor]

STARTS = (b"PK\x03\x04", b"\x80")  # of what torch saves: a zip file, formerly a pickle
DAMAGED = (
    RuntimeError, EOFError, OSError, ValueError,
    LookupError, TypeError, AttributeError, AssertionError, OverflowError, struct.error,
)  # fmt: skip
"""What torch raises for a file that is cut short, or begins like one of its own and is not."""

SHOWN = 4  # names listed in an error before "and n more"


def read_tensors(path: Path) -> Tensors:
    """All tensors of a .safetensors or .pth file, memory-mapped where the format allows.

    Raises `CheckpointError` for a file that is missing, truncated, or a pickle of anything but a
    plain dictionary of tensors.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint file")
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path}: truncated or not safetensors ({error})") from None
    return _read_pickle(path)


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
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) and tensor.layout is torch.strided
        for name, tensor in content.items()
    ):
        raise CheckpointError(f"{path}: not a plain dictionary of named tensors")
    return content


def _load_mapped(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError:  # the old format cannot be mapped
        return torch.load(path, map_location="cpu", weights_only=True)


# The diffusion transformer

_FUSED = (
    (re.compile(r"(.*self_attn\.)q(\.(?:weight|bias))"), "q", ("q", "k", "v"), "qkv"),
    (re.compile(r"(.*cross_attn\.)k(\.(?:weight|bias))"), "k", ("k", "v"), "kv"),
)
DIT_PREFIX = "model."


def dit_from_released(tensors: Mapping[str, Tensor], source: Path = Path("transformer")) -> Tensors:
    """Released names to ours: the prefix goes, attention products are fused."""
    ours = {name.removeprefix(DIT_PREFIX): tensor for name, tensor in tensors.items()}
    for name in list(ours):
        for pattern, _, parts, fused in _FUSED:
            match = pattern.fullmatch(name)
            if not match:
                continue
            names = [f"{match[1]}{part}{match[2]}" for part in parts]
            if not all(each in ours for each in names):
                continue
            try:
                ours[f"{match[1]}{fused}{match[2]}"] = torch.cat([ours.pop(n) for n in names])
            except RuntimeError:
                listed = ", ".join(names)
                raise CheckpointError(f"{source}: {listed} are of shapes that do not fit") from None
    return ours


def dit_to_released(tensors: Mapping[str, Tensor]) -> Tensors:
    """The inverse of `dit_from_released`."""
    released: Tensors = {}
    for name, tensor in tensors.items():
        for _, _, parts, fused in _FUSED:
            head, dot, tail = name.rpartition(f"_attn.{fused}.")
            if dot:
                for part, chunk in zip(parts, tensor.chunk(len(parts)), strict=True):
                    released[f"{DIT_PREFIX}{head}_attn.{part}.{tail}"] = chunk.clone()
                break
        else:
            released[DIT_PREFIX + name] = tensor
    return released


# The VAE

_RESIDUAL = {"0": "norm1", "2": "conv1", "3": "norm2", "6": "conv2"}
_MIDDLE = {"0": "residual1", "1": "attention", "2": "residual2"}
_HEAD = {"0": "norm", "2": "conv"}
_RENAMED = (
    (r"\.residual\.(\d)\.", _RESIDUAL, ".{}.", r"\.(norm1|conv1|norm2|conv2)\.", ".residual.{}."),
    (
        r"\.middle\.(\d)\.",
        _MIDDLE,
        ".middle.{}.",
        r"\.middle\.(residual1|attention|residual2)\.",
        ".middle.{}.",
    ),
    (r"\.head\.(\d)\.", _HEAD, ".head.{}.", r"\.head\.(norm|conv)\.", ".head.{}."),
)


def _substitute(name: str, pattern: str, table: Mapping[str, str], form: str) -> str:
    return re.sub(pattern, lambda match: form.format(table.get(match[1], match[1])), name)


def vae_from_released(tensors: Mapping[str, Tensor]) -> Tensors:
    """Released names to ours; convolutions over time are folded, norms flattened."""
    ours: Tensors = {}
    for released, tensor in tensors.items():
        name = released.replace("encoder.downsamples.", "encoder.stages.")
        name = name.replace("decoder.upsamples.", "decoder.stages.").replace(
            ".resample.1.", ".conv."
        )
        for pattern, table, form, _, _ in _RENAMED:
            name = _substitute(name, pattern, table, form)
        if name.endswith(".gamma"):
            tensor = tensor.flatten()
        elif tensor.dim() == 5:
            tensor = fold_taps(tensor)
        ours[name] = tensor
    return ours


def vae_to_released(tensors: Mapping[str, Tensor]) -> Tensors:
    """The inverse of `vae_from_released`."""
    released: Tensors = {}
    for ours, tensor in tensors.items():
        name = ours
        spatial = re.search(r"stages\.\d+\.conv\.|to_qkv|proj", name)
        if name.endswith(".gamma"):
            ones = 2 if ".attention." in name else 3
            tensor = tensor.reshape(-1, *[1] * ones)
        elif tensor.dim() == 4 and not spatial:
            single = re.search(r"^conv[12]\.|shortcut", name)
            tensor = unfold_taps(tensor, 1 if single else TAPS)
        name = re.sub(r"(stages\.\d+)\.conv\.", r"\1.resample.1.", name)
        for _, table, _, pattern, form in _RENAMED:
            inverse = {value: key for key, value in table.items()}
            if "residual" in form:  # the outer input convolutions are called conv1 in both
                pattern = r"(?<=\d)" + pattern
            name = _substitute(name, pattern, inverse, form)
        name = name.replace("encoder.stages.", "encoder.downsamples.")
        released[name.replace("decoder.stages.", "decoder.upsamples.")] = tensor
    return released


# The image tower

VISION_PREFIX = "visual."


def vision_from_released(tensors: Mapping[str, Tensor]) -> Tensors:
    """The image tower's tensors: the text tower, the last layer and the projection are unused."""
    ours = {
        name.removeprefix(VISION_PREFIX): tensor
        for name, tensor in tensors.items()
        if name.startswith(VISION_PREFIX)
    }
    layers = [int(m[1]) for m in map(re.compile(r"transformer\.(\d+)\.").match, ours) if m]
    unused = ("post_norm.", "head", f"transformer.{max(layers, default=-1)}.")
    return {name: tensor for name, tensor in ours.items() if not name.startswith(unused)}


# Loading


def load_strictly(
    module: nn.Module,
    tensors: Tensors,
    source: Path,
    convert: Callable[[Tensor], Tensor],
    fits: Callable[[], str] = lambda: "",
) -> None:
    """Give a module on the meta device its tensors, each of them and no other.

    `convert` takes a tensor to its device and type; `fits` says, for the error, which variant
    the tensors would fit.
    """
    wanted = module.state_dict()
    problems = []
    missing = wanted.keys() - tensors.keys()
    extra = tensors.keys() - wanted.keys()
    wrong = [
        f"{name} {list(tensors[name].shape)} instead of {list(wanted[name].shape)}"
        for name in wanted
        if name in tensors and tensors[name].shape != wanted[name].shape
    ]
    for kind, names in (("missing", missing), ("unexpected", extra), ("of the wrong shape", wrong)):
        if names:
            problems.append(f"{len(names)} tensors {kind}: {first_few(sorted(names))}")
    if problems:
        raise CheckpointError(f"{source}: {'; '.join(problems)}{fits()}")
    module.load_state_dict(
        {name: convert(tensors[name]) for name in wanted}, strict=True, assign=True
    )


def channels_last(tensor: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """A tensor of the VAE moved; weights of 2-D convolutions in the layout they are used in."""
    moved = tensor.to(device, dtype)
    return moved.contiguous(memory_format=torch.channels_last) if moved.dim() == 4 else moved


def first_few(names: Iterable[str]) -> str:
    """The first names of a list that may be long."""
    listed = list(names)
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return ", ".join(listed[:SHOWN]) + more
