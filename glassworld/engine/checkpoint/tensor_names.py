"""The release's tensor names and ours, and loading strictly.

Released files keep Wan's and CLIP's names. Ours differ where a layer is fused (queries, keys and
values in one matmul), folded (convolutions over taps) or better named; the rules below say how,
and work both ways.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from glassworld.engine.checkpoint.tensor_files import Tensors
from glassworld.errors import CheckpointError
from glassworld.models.vae.causal_conv import TAPS, fold_taps, unfold_taps

SHOWN = 4  # names listed in an error before "and n more"


# The diffusion transformer

_FUSED = (
    (re.compile(r"(.*self_attn\.)q(\.(?:weight|bias))"), "q", ("q", "k", "v"), "qkv"),
    (re.compile(r"(.*cross_attn\.)k(\.(?:weight|bias))"), "k", ("k", "v"), "kv"),
)
DIT_PREFIX = "model."


def dit_from_released(tensors: Mapping[str, Tensor], source: Path = Path("transformer")) -> Tensors:
    """Return the tensors by our names: the prefix goes, attention matmuls are fused."""
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
                raise CheckpointError(
                    f"{source}: {listed} are of shapes that do not fit; use another checkpoint"
                ) from None
    return ours


def dit_to_released(tensors: Mapping[str, Tensor]) -> Tensors:
    """Return the tensors by released names: the inverse of `dit_from_released`."""
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
    """Return the tensors by our names; convolutions over time are folded, norms flattened."""
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
    """Return the tensors by released names: the inverse of `vae_from_released`."""
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
    """Return the image tower's tensors without its last layer and its projection, unused here."""
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
    stored: Mapping[str, Tensor] | None = None,
) -> None:
    """Give a module on the meta device its tensors, each of them and no other.

    `convert` takes a tensor to its device and type. For errors: `fits` says which variant the
    tensors would fit, and `stored` holds them by the file's own names. Raises `CheckpointError`,
    for numbers that are not finite too.
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
    converted = {name: convert(tensors[name]) for name in wanted}
    for name, tensor in converted.items():
        # The sum alone is quick; it is too large for a few tensors that are fine.
        if not tensor.sum(dtype=torch.float32).isfinite() and not tensor.isfinite().all():
            raise CheckpointError(f"{source}: {_not_finite(name, tensor, stored or tensors)}")
    module.load_state_dict(converted, strict=True, assign=True)


def _not_finite(name: str, converted: Tensor, stored: Mapping[str, Tensor]) -> str:
    """Name the first tensor of a file that is not finite, or the one that its type made so."""
    for stored_name, tensor in stored.items():
        if tensor.dtype.is_floating_point and not tensor.float().isfinite().all():
            return f"{stored_name} holds numbers that are not finite (NaN or infinity)"
    kind = str(converted.dtype).removeprefix("torch.")
    return f"{name} holds numbers too large for {kind}; try dtype float32"


def channels_last(tensor: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return a tensor of the VAE on the device; 2-D convolutions in the layout they are used in."""
    moved = tensor.to(device, dtype)
    return moved.contiguous(memory_format=torch.channels_last) if moved.dim() == 4 else moved


def first_few(names: Iterable[str]) -> str:
    """Return the first names of a list that may be long."""
    listed = list(names)
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return ", ".join(listed[:SHOWN]) + more
