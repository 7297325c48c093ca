"""Linear layers and convolutions on a CPU by oneDNN, with weights packed ahead of time.

torch hands float32 matmuls to another library, which stays with AVX2 on CPUs of some vendors: half
of what those CPUs can do. And it packs a convolution's weight again in every call, or runs small
convolutions without oneDNN. `torch.backends.mkldnn.enabled = False` switches this module off, too.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

MIN_MULTIPLICATIONS = 1_500_000  # below this, calling oneDNN directly does not pay
MAX_PACKED_NUMEL = 2**20  # a larger weight is not packed: its copy would cost memory


def runs_eagerly_on_cpu(x: Tensor) -> bool:
    """Return whether `x` is on a CPU and runs op by op: no gradients, no compiler."""
    eager = not torch.is_grad_enabled() and not torch.compiler.is_compiling()
    return eager and x.device.type == "cpu"


@cache
def _has_operators(dtype: torch.dtype) -> bool:
    """Return whether this torch has the operators for `dtype`; its own compiler calls them, too."""
    operators = torch.ops.mkldnn
    names = ("_linear_pointwise", "_convolution_pointwise", "_convolution_pointwise_")
    if not all(hasattr(operators, name) for name in names):
        return False
    if dtype is torch.bfloat16:
        return bool(operators._is_mkldnn_bf16_supported())
    return dtype is torch.float32


def supports(x: Tensor, weight: Tensor, multiplications: int) -> bool:
    """Return whether oneDNN takes `x` and `weight`, and `multiplications` are enough to pay.

    It takes float32, and bfloat16 on CPUs with instructions for it.
    """
    return (
        multiplications >= MIN_MULTIPLICATIONS
        and runs_eagerly_on_cpu(x)
        and x.dtype is weight.dtype
        and torch.backends.mkldnn.is_available()
        and bool(torch.backends.mkldnn.enabled)
        and _has_operators(x.dtype)
    )


def pack_linear_weight(weight: Tensor) -> Tensor:
    """Return the packed weight `[out, in]` of a linear layer; a large one as it is."""
    if weight.numel() > MAX_PACKED_NUMEL:
        return weight
    return torch.ops.mkldnn._reorder_linear_weight(weight)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool) -> Tensor:
    """Return x W^T + bias for `x` `[..., in]`; with `gelu` followed by GELU (tanh form)."""
    activation, form = ("gelu", "tanh") if gelu else ("none", "")
    return torch.ops.mkldnn._linear_pointwise.default(x, weight, bias, activation, [], form)


def pack_conv2d_weight(weight: Tensor, images: Tensor, padding: int) -> Tensor:
    """Return the weight `[out, in, h, w]` packed for such images; a large one as it is."""
    if weight.numel() > MAX_PACKED_NUMEL:
        return weight
    sides, ones, size = [padding, padding], [1, 1], list(images.shape)
    dense = weight.to_mkldnn()
    return torch._C._nn.mkldnn_reorder_conv2d_weight(dense, sides, ones, ones, 1, size)  # type: ignore[call-arg]


@cache
def prefers_conv3d() -> bool:
    """Return whether a packed conv3d beats a conv2d over folded taps: on CPUs that end at AVX2.

    Measured in docs/lab/performance.md; with AVX-512 it has not been measured.
    """
    return torch.backends.cpu.get_cpu_capability() == "AVX2"


def pack_conv3d_weight(weight: Tensor, clip: Tensor, padding: list[int]) -> Tensor:
    """Return the weight `[out, in, t, h, w]` packed for such clips."""
    ones, size = [1, 1, 1], list(clip.shape)
    dense = weight.contiguous().to_mkldnn()
    return torch._C._nn.mkldnn_reorder_conv3d_weight(dense, padding, ones, ones, 1, size)  # type: ignore[call-arg]


def conv3d(clip: Tensor, weight: Tensor, bias: Tensor | None, padding: list[int]) -> Tensor:
    """Convolve `clip` `[n, in, t, h, w]` (channels last) with stride 1 and a packed weight."""
    ones = [1, 1, 1]
    convolve = torch.ops.mkldnn._convolution_pointwise.default
    return convolve(clip, weight, bias, padding, ones, ones, 1, "none", [], "")


def conv2d(
    images: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    padding: int,
    accumulator: Tensor | None = None,
) -> Tensor:
    """Convolve `images` `[n, in, h, w]` (channels last) with stride 1.

    With an `accumulator` the result is added to it in place.
    """
    operators, sides, ones = torch.ops.mkldnn, [padding, padding], [1, 1]
    arguments = (images, weight, bias, sides, ones, ones, 1)
    if accumulator is None:
        return operators._convolution_pointwise.default(*arguments, "none", [], "")
    return operators._convolution_pointwise_.binary(
        accumulator, *arguments, "add", 1.0, None, [], None
    )
