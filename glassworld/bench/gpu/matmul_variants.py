"""Variants of the transformer's matmuls at a world's own sizes.

On a GPU they run as captured graphs, so that only the time of the device counts. Each launch uses
another weight, as the launches of a block do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from glassworld.bench.accuracy import relative_errors
from glassworld.bench.gpu.context import BenchContext, error_row
from glassworld.bench.peak_rates import median_seconds
from glassworld.bench.section_runner import Figures
from glassworld.engine.world import World
from glassworld.models.ops.quantized import quantize

WEIGHTS = 8  # more than the caches of a GPU hold
LAUNCHES = 48


@dataclass(frozen=True)
class Operands:
    """Inputs of a matmul: `x` `[rows, inner]`, `weight` `[columns, inner]`, `bias` `[columns]`."""

    x: Tensor
    weight: Tensor
    bias: Tensor


Call = Callable[[], Tensor]


@dataclass(frozen=True)
class MatmulVariant:
    """One way to compute a matmul, with or without a bias, and with or without GELU after it."""

    prepare: Callable[[Operands], Call]  # returns the call to time
    bias: bool = True
    gelu: bool = False

    def exact(self, operands: Operands) -> Tensor:
        """Compute the result in float32."""
        bias = operands.bias.float() if self.bias else None
        y = F.linear(operands.x.float(), operands.weight.float(), bias)
        return F.gelu(y, approximate="tanh") if self.gelu else y


def compare_matmuls(context: BenchContext) -> Figures:
    """Measure microseconds, TFLOP/s and error against float32 of each matmul and variant."""
    world, figures = context.build_world(), Figures()
    for name, (inner, columns) in _sizes(world).items():
        operands = [_operands(world, inner, columns) for _ in range(WEIGHTS)]
        variants = _variants(gelu=name == "widen")
        rows = {label: _measure(variant, operands) for label, variant in variants.items()}
        figures[name] = {"shape": [len(operands[0].x), inner, columns], **rows}
        context.save(figures)
    return figures


def _sizes(world: World) -> dict[str, tuple[int, int]]:
    """Return the inner width and columns of the matmuls over all tokens of a layer."""
    dim, hidden = world.spec.dit.dim, world.spec.dit.ffn_dim
    return {
        "queries, keys, values": (dim, 3 * dim),
        "out": (dim, dim),
        "widen": (dim, hidden),
        "narrow": (hidden, dim),
    }


def _operands(world: World, inner: int, columns: int) -> Operands:
    rows = world.spec.frames_per_block * world.spec.tokens_per_frame
    shapes = ((rows, inner), (columns, inner), (columns,))
    x, weight, bias = (torch.randn(shape, device=world.device) for shape in shapes)
    return Operands(*(part.to(world.dtype) for part in (x, weight * inner**-0.5, bias)))


def _variants(gelu: bool) -> dict[str, MatmulVariant]:
    """Return the variants of a matmul; with `gelu` also of a matmul with GELU after it."""
    variants = {"linear": MatmulVariant(lambda ops: partial(F.linear, ops.x, ops.weight, ops.bias))}
    if gelu:
        variants["gelu after it"] = MatmulVariant(_gelu_after, gelu=True)
        variants["gelu in it"] = MatmulVariant(_gelu_fused, gelu=True)
    for scales, fast, bias in product(("rows", "whole"), (False, True), (False, True)):
        name = f"float8 {scales}" + ", fast sums" * fast + ", bias" * bias
        prepare = partial(_float8, by_rows=scales == "rows", fast=fast, bias=bias)
        variants[name] = MatmulVariant(prepare, bias=bias)
    return variants


def _gelu_after(ops: Operands) -> Call:
    return lambda: F.gelu(F.linear(ops.x, ops.weight, ops.bias), approximate="tanh")


def _gelu_fused(ops: Operands) -> Call:
    fused = torch.ops.aten._addmm_activation
    return lambda: fused(ops.bias, ops.x, ops.weight.T, use_gelu=True)


def _float8(ops: Operands, by_rows: bool, fast: bool, bias: bool) -> Call:
    """Prepare the matmul alone: the time to quantize `x` comes on top.

    With a scale for each row of `x` and each output column, or with one scale for each matrix.
    """
    (x, x_scale), (weight, weight_scale) = (
        _to_float8(part, by_rows) for part in (ops.x, ops.weight)
    )
    scales = (x_scale, weight_scale.T.contiguous() if by_rows else weight_scale)
    vector = ops.bias.bfloat16() if bias else None
    matmul = partial(torch._scaled_mm, x, weight.T, *scales, bias=vector)
    return partial(matmul, out_dtype=torch.bfloat16, use_fast_accum=fast)


def _to_float8(x: Tensor, by_rows: bool) -> tuple[Tensor, Tensor]:
    if by_rows:
        return quantize(x, torch.float8_e4m3fn)
    whole, scale = quantize(x.reshape(1, -1), torch.float8_e4m3fn)
    return whole.view(x.shape), scale.reshape(())


@torch.inference_mode()
def _measure(variant: MatmulVariant, operands: list[Operands]) -> Figures:
    try:
        calls = [variant.prepare(each) for each in operands]
        result, exact = calls[0]().float(), variant.exact(operands[0])
        seconds = _mean_seconds(calls, exact.device)
    except Exception as error:  # not every device supports every variant
        return error_row(error)
    flops = 2 * exact.numel() * operands[0].x.shape[1]
    return {
        "us": 1e6 * seconds,
        "tflops": flops / seconds / 1e12,
        "distance_in_spreads": relative_errors([result], [exact])[0],
    }


def _mean_seconds(calls: list[Call], device: torch.device) -> float:
    """Return the mean seconds of one call."""

    def launch() -> None:
        for index in range(LAUNCHES):
            calls[index % len(calls)]()

    if device.type != "cuda":
        return median_seconds(launch, device) / LAUNCHES
    launch()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        launch()
    return median_seconds(graph.replay, device) / LAUNCHES
