"""What makes a world faster where it is asked for.

With the same results:

- `attention` measures the ways this device has to attend, and takes the fastest.
- `convolutions` measures two ways to do each of the decoder's, and takes the faster.
- `kernels` does what lies between products and convolutions by our own GPU kernels.
- `layers` compiles the transformer's layers instead; what was compiled is kept for the next start.
- `graphs` launches whole passes of the transformer and the decoder as captured CUDA graphs.

With results that differ a little, by how much the benchmark says:

- `int8` and `float8` do the transformer's wide products in 8 bits.
"""

from __future__ import annotations

from collections.abc import Collection
from contextvars import copy_context
from functools import partial

import torch
from PIL import Image

from glassworld.engine.acceleration.autotune import choose_attention, choose_convolutions
from glassworld.engine.acceleration.compile import compile_layers
from glassworld.engine.world import World
from glassworld.errors import InputError
from glassworld.models.ops.quantized import quantize_layers
from glassworld.models.vae.decoder import VAEDecoder
from glassworld.models.vae.tiny_decoder import TinyDecoder

EXACT = ("attention", "convolutions", "kernels", "layers", "graphs")
QUANTIZED = {"int8": torch.int8, "float8": torch.float8_e4m3fn}
PARTS = (*EXACT, *QUANTIZED)
RIVALS = (tuple(QUANTIZED), ("kernels", "layers"))  # of which one can be asked for
FIRST_BFLOAT16, FIRST_FLOAT8 = (8, 0), (8, 9)  # compute capabilities of GPUs


def check_parts(parts: Collection[str]) -> None:
    """Raises `InputError` for a part that is not there."""
    if isinstance(parts, str):  # its letters would be parts
        raise InputError(f"accelerate {parts!r}: give a list of parts, such as ['attention']")
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        raise InputError(f"accelerate {unknown[0]!r}: must be one of {', '.join(PARTS)}")
    for rivals in RIVALS:
        if set(rivals) <= set(parts):
            raise InputError(f"accelerate: choose one of {' and '.join(rivals)}")


def hint(device: torch.device, asked_for: Collection[str]) -> str:
    """What to tell a person who asked for no part on a device where some are worth it, or ""."""
    if device.type == "cpu" or asked_for:
        return ""
    return "--accelerate kernels,graphs: on an H200 two to three times as many frames per second"


def accelerate(world: World, parts: Collection[str]) -> None:
    """Make a world faster, in place, before its first session begins.

    Kernels and graphs need a CUDA device and are left out elsewhere. Raises `InputError` for an
    unknown part, and for one that fails here.
    """
    check_parts(parts)
    cuda = world.device.type == "cuda"
    for part in QUANTIZED.keys() & set(parts):
        _quantise(world, part)
    if "kernels" in parts and cuda:
        _use_kernels(world)
    if "attention" in parts:
        choose_attention(world)
    if "convolutions" in parts:
        choose_convolutions(world)
    if "kernels" in parts and cuda:
        _compile_ahead(world)
    if "layers" in parts:
        compile_layers(world.networks.dit, world.spec, partial(_make_a_block, world))
    world.pipeline.captures = "graphs" in parts and cuda


def _make_a_block(world: World) -> None:
    picture = Image.new("RGB", (world.spec.width, world.spec.height))
    world.start(picture).step(world.space.press(()))


def _use_kernels(world: World) -> None:
    try:
        from glassworld.models.kernels.fused_decoder import fuse_decoder
        from glassworld.models.kernels.fused_layer import fuse_layers
        from glassworld.models.kernels.fused_tiny_decoder import fuse_tiny_decoder
    except ImportError as error:
        raise InputError(
            f"accelerate: kernels need Triton ({error}); leave out 'kernels'"
        ) from None
    _require_capability(world, "kernels", FIRST_BFLOAT16)
    fuse_layers(world.networks.dit)
    decoder = world.pipeline.decoder
    if isinstance(decoder, VAEDecoder) and not decoder.compiled:
        fuse_decoder(decoder)
    elif isinstance(decoder, TinyDecoder):
        fuse_tiny_decoder(decoder)


def _compile_ahead(world: World) -> None:
    """Once everything is chosen that kernels are compiled for."""
    from glassworld.engine.acceleration.precompile import rehearse

    try:
        # In a context of its own: Triton's compiling side by side outlasts what fails in it.
        copy_context().run(rehearse, world)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"accelerate: compiling kernels failed here ({reason}); leave out 'kernels'"
        ) from error


def _quantise(world: World, part: str) -> None:
    if part == "float8":
        _require_capability(world, "float8", FIRST_FLOAT8)
    quantize_layers(world.networks.dit.blocks, QUANTIZED[part])


def _require_capability(world: World, part: str, least: tuple[int, int]) -> None:
    if world.device.type == "cuda" and torch.cuda.get_device_capability(world.device) < least:
        major, minor = least
        raise InputError(
            f"accelerate {part!r}: needs a GPU of compute capability {major}.{minor} or later; "
            "leave it out"
        )
