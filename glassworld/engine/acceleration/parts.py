"""The parts of `accelerate`: what makes a world faster on request.

With the same results:

- `attention` measures the attention backends of this device, and takes the fastest.
- `convolutions` measures two ways to compute each of the decoder's, and takes the faster.
- `kernels` replaces all operators between matmuls and convolutions by our own GPU kernels.
- `layers` compiles the transformer's layers instead, and stores the result for the next start.
- `graphs` launches whole passes of the transformer and the decoder as captured CUDA graphs.

With results that differ a little (the benchmark reports by how much):

- `int8` and `float8` compute the transformer's wide matmuls in 8 bits.
"""

from __future__ import annotations

from collections.abc import Collection
from contextvars import copy_context
from dataclasses import replace
from functools import partial

import torch
from PIL import Image
from torch.nn.attention import SDPBackend

from glassworld.engine.acceleration.autotune import choose_attention, choose_convolutions
from glassworld.engine.acceleration.compile import compile_layers
from glassworld.engine.networks import Networks
from glassworld.engine.pipeline import ExecutionPlan
from glassworld.engine.runtime.device import has_fast_bfloat16
from glassworld.engine.world import World
from glassworld.errors import InputError
from glassworld.models.ops.quantized import quantize_layers
from glassworld.models.vae.decoder import VAEDecoder
from glassworld.models.vae.tiny_decoder import TinyDecoder
from glassworld.specs import WorldSpec

EXACT = ("attention", "convolutions", "kernels", "layers", "graphs")
QUANTIZED = {"int8": torch.int8, "float8": torch.float8_e4m3fn}
PARTS = (*EXACT, *QUANTIZED)
EXCLUSIVE = (tuple(QUANTIZED), ("kernels", "layers"))  # at most one of each
MIN_BFLOAT16, MIN_FLOAT8 = (8, 0), (8, 9)  # compute capabilities of GPUs


def check_parts(parts: Collection[str]) -> None:
    """Raise `InputError` for an unknown part, or for two that exclude each other."""
    if isinstance(parts, str):  # its letters would be parts
        raise InputError(f"accelerate {parts!r}: give a list of parts, such as ['attention']")
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        raise InputError(f"accelerate {unknown[0]!r}: must be one of {', '.join(PARTS)}")
    for exclusive in EXCLUSIVE:
        if set(exclusive) <= set(parts):
            raise InputError(f"accelerate: choose one of {' and '.join(exclusive)}")


def hint(device: torch.device, asked_for: Collection[str], dtype: str | None) -> str:
    """Return advice on what would be faster on this device, or "".

    Parameters
    ----------
    device
        Where the world runs.
    asked_for
        The parts that the user asked for.
    dtype
        The precision that the user asked for, None for the default.
    """
    if device.type == "cpu":
        if dtype not in ("mixed", "bfloat16") or has_fast_bfloat16("cpu"):
            return ""
        return f"--dtype {dtype} is slow here: this processor lacks bfloat16; try --dtype float32"
    if asked_for:
        return ""
    return "--accelerate kernels,graphs: on an H200 two to three times as many frames per second"


def accelerate(world: World, parts: Collection[str]) -> World:
    """Return a faster world with the same weights; `world` itself stays as it is.

    Raises what `accelerate_networks` does, and `InputError` for a world that is compiled.
    """
    check_parts(parts)
    if not parts:
        return world
    networks = world.networks.copy()
    plan = accelerate_networks(world.spec, networks, parts)
    return replace(world, networks=networks, plan=plan)


def accelerate_networks(
    spec: WorldSpec, networks: Networks, parts: Collection[str]
) -> ExecutionPlan:
    """Make networks faster, in place, before a world has them; return how to run them.

    Kernels and graphs need a CUDA device and are left out elsewhere. Raises `InputError` for an
    unknown part, and for one that fails here.
    """
    check_parts(parts)
    cuda = networks.device.type == "cuda"
    backends: tuple[SDPBackend, ...] = ()
    for part in QUANTIZED.keys() & set(parts):
        _quantize(networks, part)
    if "kernels" in parts and cuda:
        use_kernels(networks)
    if "attention" in parts:
        backends = choose_attention(spec, networks).backends
    if "convolutions" in parts:
        choose_convolutions(spec, networks)
    if "kernels" in parts and cuda:
        compile_ahead(spec, networks)
    if "layers" in parts:
        warm_up = World(spec, networks, "warm-up", plan=ExecutionPlan(backends))
        compile_layers(networks.dit, spec, partial(_generate_block, warm_up))
    return ExecutionPlan(backends, cuda_graphs="graphs" in parts and cuda)


def _generate_block(world: World) -> None:
    image = Image.new("RGB", (world.spec.width, world.spec.height))
    world.start(image).step(world.space.press(()))


def use_kernels(networks: Networks) -> None:
    """Have the transformer and the decoder run by our own kernels, in place."""
    try:
        from glassworld.models.kernels.fused_decoder import fuse_decoder
        from glassworld.models.kernels.fused_layer import fuse_layers
        from glassworld.models.kernels.fused_tiny_decoder import fuse_tiny_decoder
    except ImportError as error:
        raise InputError(
            f"accelerate: kernels need Triton ({error}); leave out 'kernels'"
        ) from None
    _require_capability(networks.device, "kernels", MIN_BFLOAT16)
    fuse_layers(networks.dit)
    decoder = networks.decoder
    if isinstance(decoder, VAEDecoder) and not decoder.compiled:
        fuse_decoder(decoder)
    elif isinstance(decoder, TinyDecoder):
        fuse_tiny_decoder(decoder)


def compile_ahead(spec: WorldSpec, networks: Networks) -> None:
    """Compile all kernels, once everything is chosen that they are compiled for."""
    from glassworld.engine.acceleration.precompile import precompile_kernels  # needs Triton

    try:
        # In a context of its own: Triton's compiling side by side outlasts what fails in it.
        copy_context().run(precompile_kernels, spec, networks)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"accelerate: compiling kernels failed here ({reason}); leave out 'kernels'"
        ) from error


def _quantize(networks: Networks, part: str) -> None:
    if part == "float8":
        _require_capability(networks.device, "float8", MIN_FLOAT8)
    quantize_layers(networks.dit.blocks, QUANTIZED[part])


def _require_capability(device: torch.device, part: str, least: tuple[int, int]) -> None:
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < least:
        major, minor = least
        raise InputError(
            f"accelerate {part!r}: needs a GPU of compute capability {major}.{minor} or later; "
            "leave it out"
        )
