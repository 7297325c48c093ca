"""Products and convolutions on a processor, by oneDNN and with weights laid out ahead.

torch gives float32 products to another library, which keeps to AVX2 on processors of some makers:
half of what they can do. And it lays out a convolution's weights anew in every call, or does small
ones without oneDNN. Switched off together with oneDNN by `torch.backends.mkldnn.enabled = False`.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

MIN_MULTIPLICATIONS = 1_500_000  # multiplications from which such a call pays
MAX_PACKED_NUMEL = (
    2**20
)  # numbers in a weight of which a second copy, laid out, costs nothing to speak of


def runs_eagerly_on_cpu(x: Tensor) -> bool:
    """Return whether `x` is on the CPU and runs op by op: no gradients, no compiler."""
    eager = not torch.is_grad_enabled() and not torch.compiler.is_compiling()
    return eager and x.device.type == "cpu"


@cache
def _takes(dtype: torch.dtype) -> bool:
    """Whether this torch has the operators, which its compiler calls too, for this type."""
    known = torch.ops.mkldnn
    names = ("_linear_pointwise", "_convolution_pointwise", "_convolution_pointwise_")
    if not all(hasattr(known, name) for name in names):
        return False
    if dtype is torch.bfloat16:
        return bool(known._is_mkldnn_bf16_supported())
    return dtype is torch.float32


def supports(x: Tensor, weight: Tensor, work: int) -> bool:
    """Whether these operators take them, and it pays for so many multiplications.

    Float32, and bfloat16 where the processor multiplies it.
    """
    return (
        work >= MIN_MULTIPLICATIONS
        and runs_eagerly_on_cpu(x)
        and x.dtype is weight.dtype
        and torch.backends.mkldnn.is_available()
        and bool(torch.backends.mkldnn.enabled)
        and _takes(x.dtype)
    )


def pack_linear_weight(weight: Tensor) -> Tensor:
    """The weight of a linear layer `[out, in]`; a large one as it is."""
    if weight.numel() > MAX_PACKED_NUMEL:
        return weight
    return torch.ops.mkldnn._reorder_linear_weight(weight)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool) -> Tensor:
    """x W^T + bias for `x` `[..., in]`; with `gelu` followed by GELU in its tanh form."""
    then, form = ("gelu", "tanh") if gelu else ("none", "")
    return torch.ops.mkldnn._linear_pointwise.default(x, weight, bias, then, [], form)


def pack_conv2d_weight(weight: Tensor, pictures: Tensor, padding: int) -> Tensor:
    """The weight `[out, in, h, w]` of a convolution over such pictures; a large one as it is."""
    if weight.numel() > MAX_PACKED_NUMEL:
        return weight
    sides, ones, size = [padding, padding], [1, 1], list(pictures.shape)
    dense = weight.to_mkldnn()
    return torch._C._nn.mkldnn_reorder_conv2d_weight(dense, sides, ones, ones, 1, size)  # type: ignore[call-arg]


def conv2d(
    pictures: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    padding: int,
    onto: Tensor | None = None,
) -> Tensor:
    """`pictures`: `[n, in, h, w]`, channels last; with `onto` the result is added there."""
    known, sides, ones = torch.ops.mkldnn, [padding, padding], [1, 1]
    given = (pictures, weight, bias, sides, ones, ones, 1)
    if onto is None:
        return known._convolution_pointwise.default(*given, "none", [], "")
    return known._convolution_pointwise_.binary(onto, *given, "add", 1.0, None, [], None)
