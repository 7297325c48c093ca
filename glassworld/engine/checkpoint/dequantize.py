"""Weights stored in 8 bits: multiplied by their scales, or refused by name.

Tools name a weight's scale in several ways; all of them mean that the stored number times the
scale is the weight. A scale is one number, one per output row, or one per square block.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from glassworld.engine.checkpoint.tensor_files import Tensors
from glassworld.errors import CheckpointError

FLOAT8 = (
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2fnuz,
)
FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16, *FLOAT8)

SCALES = ("weight_scale", "scale_weight", "weight_scale_inv", "weight.scale", "weight_scales")
"""The names that stand in place of `weight` for its scale."""

UNUSED = ("input_scale", "scale_input", "scaled_fp8", "activation_scale")
"""Scales of activations, and a marker: weights do not need them."""

BLOCK = 128
"""The usual side of a block that has a scale of its own."""


def dequantized(tensors: Mapping[str, Tensor], source: Path) -> Tensors:
    """Return the tensors with 8-bit weights multiplied out, in float32; their scales are gone.

    Raises `CheckpointError` for integers without a scale, for a weight without one where others
    have one, for a scale of a shape that does not fit or not above 0, and for one that belongs to
    no weight.
    """
    plain: Tensors = {}
    scales, used = {name for name in tensors if _weight_of(name) is not None}, set[str]()
    for name, tensor in tensors.items():
        if name in scales or name.rpartition(".")[2] in UNUSED:
            continue
        scale = _scale_of(name, tensors)
        if scale is not None and (tensor.dtype in FLOAT8 or tensor.dtype is torch.int8):
            plain[name] = _multiplied(tensor, tensors[scale], name, scale, source)
            used.add(scale)
        elif tensor.dtype in FLOATS and scale is None:
            if tensor.dtype in FLOAT8 and tensor.dim() > 1 and scales:
                raise CheckpointError(
                    f"{source}: {name} has no scale, although others have one; use float weights"
                )
            plain[name] = tensor
        else:
            raise CheckpointError(f"{source}: {_unreadable(name, tensor, scale)}")
    if scales - used:
        name = min(scales - used)
        raise CheckpointError(f"{source}: {name} is a scale, but there is no {_weight_of(name)}")
    return plain


def _unreadable(name: str, tensor: Tensor, scale: str | None) -> str:
    kind = str(tensor.dtype).removeprefix("torch.")
    if scale is not None:
        return f"{name} is {kind} with the scale {scale}, which cannot be undone; use float weights"
    return f"{name} holds {kind} numbers without a scale, so its weights are unknown"


def _weight_of(name: str) -> str | None:
    """Return the weight that a tensor is the scale of, by its name; None for no scale."""
    for end in SCALES:
        if name.endswith(f".{end}"):
            return name.removesuffix(end) + "weight"
    return None


def _scale_of(name: str, tensors: Mapping[str, Tensor]) -> str | None:
    if not name.endswith(".weight"):
        return None
    stem = name.removesuffix("weight")
    return next((stem + end for end in SCALES if stem + end in tensors), None)


def _multiplied(weight: Tensor, scale: Tensor, name: str, scale_name: str, source: Path) -> Tensor:
    if scale.dtype not in FLOATS:
        raise CheckpointError(f"{source}: {scale_name} holds {scale.dtype}; scales must be floats")
    numbers, factor = weight.float(), scale.float()
    if (factor < 0).any() or (factor.numel() == 1 and not factor.any()):
        raise CheckpointError(
            f"{source}: {scale_name} is not above 0, which no scale is; use float weights"
        )
    if factor.numel() == 1:
        return numbers * factor.reshape(())
    rows = weight.shape[0] if weight.dim() else 0
    if factor.numel() == rows and factor.shape[0] == rows:
        return numbers * factor.reshape(-1, *[1] * (weight.dim() - 1))
    if weight.dim() == factor.dim() == 2:
        sides = [-(-size // count) for size, count in zip(weight.shape, factor.shape, strict=True)]
        for side in (BLOCK, max(sides)):
            if [-(-size // side) for size in weight.shape] == list(factor.shape):
                blocks = factor.repeat_interleave(side, 0).repeat_interleave(side, 1)
                return numbers * blocks[: weight.shape[0], : weight.shape[1]]
    raise CheckpointError(
        f"{source}: {scale_name} of shape {list(scale.shape)} does not fit {name} of shape "
        f"{list(weight.shape)}"
        "; use float weights"
    )
