"""What makes a world faster where it is asked for.

With the same results:

- `attention` measures the ways this device has to attend, and takes the fastest.
- `layers` compiles the transformer's layers; what was compiled is kept for the next start.
- `graphs` launches whole passes of the transformer and the decoder as captured CUDA graphs.

With results that differ a little, by how much the benchmark says:

- `int8` and `float8` multiply in 8 bits what every token of the transformer goes through.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Collection
from functools import partial

import torch
from PIL import Image
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from glassworld.engine.compilation import compile_layers
from glassworld.engine.world import World
from glassworld.errors import InputError
from glassworld.models.action import ActionModule
from glassworld.models.attention import attention, pointwise_attention
from glassworld.models.quantised import quantise_layers

EXACT = ("attention", "layers", "graphs")
QUANTISED = {"int8": torch.int8, "float8": torch.float8_e4m3fn}
PARTS = (*EXACT, *QUANTISED)
FIRST_FLOAT8 = (8, 9)  # the compute capability of the first GPUs with 8-bit floating-point products

BACKENDS = {
    "cpu": (SDPBackend.FLASH_ATTENTION, SDPBackend.MATH),
    "cuda": (
        SDPBackend.FLASH_ATTENTION,
        SDPBackend.CUDNN_ATTENTION,
        SDPBackend.EFFICIENT_ATTENTION,
        SDPBackend.MATH,
    ),
}
REPEATS = 10


Ways = dict[str, dict[str, float]]


def split_parts(text: str) -> list[str]:
    """The parts in a command line's list, joined by commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def check_parts(parts: Collection[str]) -> None:
    """Raises `InputError` for a part that is not there."""
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        raise InputError(f"accelerate {unknown[0]!r}: must be one of {', '.join(PARTS)}")


def accelerate(world: World, parts: Collection[str]) -> None:
    """Make a world faster, in place, before its first session begins.

    Graphs need a CUDA device and are left out elsewhere. Raises `InputError` for an unknown part,
    and for one that fails here.
    """
    check_parts(parts)
    for part in QUANTISED.keys() & set(parts):
        _quantise(world, part)
    if "attention" in parts:
        choose_attention(world)
    if "layers" in parts:
        compile_layers(world.networks.dit, world.spec, partial(_make_a_block, world))
    world.pipeline.captures = "graphs" in parts and world.device.type == "cuda"


def _make_a_block(world: World) -> None:
    picture = Image.new("RGB", (world.spec.width, world.spec.height))
    world.start(picture).step(world.space.press(()))


def _quantise(world: World, part: str) -> None:
    if part == "float8" and world.device.type == "cuda":
        capability = torch.cuda.get_device_capability(world.device)
        if capability < FIRST_FLOAT8:
            raise InputError("accelerate: this GPU has no float8 products; leave out 'float8'")
    quantise_layers(world.networks.dit.blocks, QUANTISED[part])


def choose_attention(world: World) -> Ways:
    """Take the fastest attention for self-attention, and for the mouse's many short ones.

    Returns what was measured: for each of the two, milliseconds of each way that works here.
    """
    measured = {"self": backend_times(*self_attention_inputs(world))}
    order = sorted(measured["self"], key=measured["self"].__getitem__)
    backends = [SDPBackend.__members__[name] for name in order]
    world.pipeline.attention = partial(sdpa_kernel, backends, set_priority=True)
    if world.spec.dit.action.mouse_dim:
        with world.pipeline.attention():
            measured["mouse"] = mouse_times(world)
        sums = measured["mouse"]["sums"] < measured["mouse"]["products"]
        for module in world.networks.dit.modules():
            if isinstance(module, ActionModule):
                module.mouse_attention = pointwise_attention if sums else attention
    return measured


@torch.inference_mode()
def backend_times(q: Tensor, k: Tensor, v: Tensor) -> dict[str, float]:
    """Milliseconds of one attention by each of torch's backends that can do it here."""
    times = {}
    for backend in BACKENDS[q.device.type]:
        with sdpa_kernel(backend), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch says at length why a backend is not for this
            try:
                times[backend.name] = milliseconds(lambda: attention(q, k, v), q.device)
            except RuntimeError:
                continue
    return times


@torch.inference_mode()
def mouse_times(world: World) -> dict[str, float]:
    """Milliseconds of one mouse attention by products of matrices and by sums."""
    heads = mouse_attention_inputs(world)
    ways = {"products": attention, "sums": pointwise_attention}
    return {
        name: milliseconds(partial(attend, *heads), world.device) for name, attend in ways.items()
    }


def milliseconds(call: Callable[[], object], device: torch.device) -> float:
    """The median of a few calls, the device waited for."""
    taken = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(1e3 * (time.perf_counter() - began))
    return statistics.median(taken)


def self_attention_inputs(world: World) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of a self-attention whose window is full."""
    spec, dit = world.spec, world.spec.dit
    keys = (1, dit.num_heads, dit.window * spec.tokens_per_frame, dit.head_dim)
    queries = (1, dit.num_heads, spec.frames_per_block * spec.tokens_per_frame, dit.head_dim)
    return _random(world, queries), _random(world, keys), _random(world, keys)


def mouse_attention_inputs(world: World) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of a mouse attention whose window is full."""
    spec, action = world.spec, world.spec.dit.action
    heads = (spec.tokens_per_frame, action.heads)
    width = action.mouse_width // action.heads
    keys = (*heads, spec.dit.window, width)
    return (
        _random(world, (*heads, spec.frames_per_block, width)),
        _random(world, keys),
        _random(world, keys),
    )


def _random(world: World, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, device=world.device).to(world.dtype)
