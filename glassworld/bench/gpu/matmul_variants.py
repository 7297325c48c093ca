"""The transformer's products at a world's own sizes, in the ways that a GPU has to do them.

On a GPU as captured graphs, so that only the device's time counts; every launch multiplies by
another weight, as a block's do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from glassworld.bench.gpu.context import BenchContext, Figures, reason
from glassworld.bench.peak_rates import median_seconds
from glassworld.engine.world import World
from glassworld.models.ops.quantized import quantize

WEIGHTS = 8  # more than the caches of a GPU hold
REPEATS = 48


@dataclass(frozen=True)
class Operands:
    """`x` `[rows, inner]`, `weight` `[columns, inner]` and `bias` `[columns]`."""

    x: Tensor
    weight: Tensor
    bias: Tensor


Call = Callable[[], Tensor]


@dataclass(frozen=True)
class Way:
    """How to do a product, with a bias and with GELU after it or without."""

    prepare: Callable[[Operands], Call]  # what it returns is what is timed
    bias: bool = True
    gelu: bool = False

    def exact(self, of: Operands) -> Tensor:
        """What is to be made, in float32."""
        bias = of.bias.float() if self.bias else None
        made = F.linear(of.x.float(), of.weight.float(), bias)
        return F.gelu(made, approximate="tanh") if self.gelu else made


def product_ways(rig: BenchContext) -> Figures:
    """Of each product and way: microseconds, TFLOP/s, how far it is from the product in float32."""
    world, found = rig.make(), Figures()
    for name, (inner, columns) in _sizes(world).items():
        operands = [_operands(world, inner, columns) for _ in range(WEIGHTS)]
        rows = {way: _timed(how, operands) for way, how in _ways(gelu=name == "widen").items()}
        found[name] = {"shape": [len(operands[0].x), inner, columns], **rows}
        rig.keep(found)
    return found


def _sizes(world: World) -> dict[str, tuple[int, int]]:
    """Inner width and columns of the products that every token of a layer goes through."""
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


def _ways(gelu: bool) -> dict[str, Way]:
    """The ways to do a product; with `gelu` also those of a product and the GELU after it."""
    ways = {"linear": Way(lambda of: partial(F.linear, of.x, of.weight, of.bias))}
    if gelu:
        ways["gelu after it"] = Way(_gelu_after, gelu=True)
        ways["gelu in it"] = Way(_gelu_within, gelu=True)
    for scales, fast, bias in product(("rows", "whole"), (False, True), (False, True)):
        name = f"float8 {scales}" + ", fast sums" * fast + ", bias" * bias
        prepare = partial(_float8, by_rows=scales == "rows", fast=fast, bias=bias)
        ways[name] = Way(prepare, bias=bias)
    return ways


def _gelu_after(of: Operands) -> Call:
    return lambda: F.gelu(F.linear(of.x, of.weight, of.bias), approximate="tanh")


def _gelu_within(of: Operands) -> Call:
    fused = torch.ops.aten._addmm_activation
    return lambda: fused(of.bias, of.x, of.weight.T, use_gelu=True)


def _float8(of: Operands, by_rows: bool, fast: bool, bias: bool) -> Call:
    """The product alone: what quantising `x` costs comes on top.

    With a scale for each row of `x` and each column of the product, or one for a whole matrix.
    """
    (x, x_scale), (weight, weight_scale) = (_in_float8(part, by_rows) for part in (of.x, of.weight))
    scales = (x_scale, weight_scale.T.contiguous() if by_rows else weight_scale)
    added = of.bias.bfloat16() if bias else None
    make = partial(torch._scaled_mm, x, weight.T, *scales, bias=added)
    return partial(make, out_dtype=torch.bfloat16, use_fast_accum=fast)


def _in_float8(x: Tensor, by_rows: bool) -> tuple[Tensor, Tensor]:
    if by_rows:
        return quantize(x, torch.float8_e4m3fn)
    whole, scale = quantize(x.reshape(1, -1), torch.float8_e4m3fn)
    return whole.view(x.shape), scale.reshape(())


@torch.inference_mode()
def _timed(way: Way, operands: list[Operands]) -> Figures:
    try:
        calls = [way.prepare(each) for each in operands]
        made, expected = calls[0]().float(), way.exact(operands[0])
        seconds = _seconds(calls, expected.device)
    except Exception as error:  # not every device has every way
        return reason(error)
    flops = 2 * expected.numel() * operands[0].x.shape[1]
    return {
        "us": 1e6 * seconds,
        "tflops": flops / seconds / 1e12,
        "distance_in_spreads": float((made - expected).square().mean().sqrt() / expected.std()),
    }


def _seconds(calls: list[Call], device: torch.device) -> float:
    """Of one call, on average."""

    def run() -> None:
        for index in range(REPEATS):
            calls[index % len(calls)]()

    if device.type != "cuda":
        return median_seconds(run, device) / REPEATS
    run()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return median_seconds(graph.replay, device) / REPEATS
