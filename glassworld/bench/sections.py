"""What `scripts/gpu_check` measures, section by section; every one also runs on a CPU.

A way to be faster is held against the plain world first; one that should make the same is timed
only if it does.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from glassworld.bench.ceilings import median_seconds
from glassworld.bench.eager.world import as_released
from glassworld.bench.kernels import slowest_kernels
from glassworld.bench.products import products_share
from glassworld.bench.roof import roof_points
from glassworld.bench.sessions import key_to_frame_ms, several_sessions
from glassworld.bench.startup import cold_start, compiled_starts
from glassworld.bench.steady import Blocks, frames_per_block, idle, steady_state, warm
from glassworld.engine.acceleration import EXACT, QUANTISED, accelerate
from glassworld.engine.choices import choose_attention, choose_convolutions
from glassworld.engine.compilation import compile_decoder
from glassworld.engine.tiny_decoding import with_tiny_decoder
from glassworld.engine.world import World
from glassworld.models.vae_convs import Memory
from glassworld.models.vae_decoder import VAEDecoder
from glassworld.models.vae_layers import Upsample

TINY = "tiny decoder"
COMPILED = "compiled decoder"
WAYS = (  # what one would want to know first comes first: the time may be up before the last
    (*EXACT, COMPILED),
    (*EXACT, "float8", TINY),
    (*EXACT, TINY),
    EXACT,
    (*EXACT, COMPILED, "float8"),
    ("graphs",),
    (),
    (*EXACT, "int8"),
    ("layers",),
)
COMPARED_BLOCKS = 12  # until every pass over a full window has been launched as a captured graph
MOST_DISTANCE = 0.05
"""Of the latents' spread: what rounding in half precision makes of a block, with room."""

Figures = dict[str, Any]


@dataclass(frozen=True)
class Rig:
    """What is measured: a world made anew for each section, from the same weights."""

    make: Callable[[], World]
    arguments: dict[str, Any]  # of `load_world`, for processes of their own
    blocks: int
    folder: Path
    keep: Callable[[Figures], None] = lambda figures: None  # hears what is there so far

    @property
    def picture(self) -> Image.Image:
        return Image.new("RGB", (640, 352), (128, 128, 128))


def steady(rig: Rig) -> Figures:
    """The plain world beside its eager baseline; stages, layer kinds, memory of a session."""
    world = rig.make()
    figures = steady_state(world, as_released(world), rig.picture, rig.blocks)
    session = warm(world, rig.picture)
    return {
        **figures,
        "products": products_share(session),
        "session_mb": session.state.tensors_bytes() / 1e6,
        "key_to_frame_ms": key_to_frame_ms(world, rig.picture),
    }


def ways_to_be_faster(rig: Rig, ways: Sequence[tuple[str, ...]] = WAYS) -> Figures:
    """Each way: how far its latents are from the plain world's, and frames per second."""
    expected, found = walk(rig.make(), rig), {}
    for parts in ways:
        try:
            row = _way(rig, parts, expected)
        except Exception as error:  # a way that fails must not hide the others
            row = {"error": f"{type(error).__name__}: {error}"}
        found["+".join(parts) or "plain"] = row
        rig.keep(found)
    return found


def _way(rig: Rig, parts: tuple[str, ...], expected: list[Tensor]) -> Figures:
    world = rig.make()
    if TINY in parts:
        world = with_tiny_decoder(world, None)
    accelerate(world, [part for part in parts if part not in (TINY, COMPILED)])
    if COMPILED in parts:
        compile_decoder(own_decoder(world), world.spec, "force")
    distance = distances(walk(world, rig), expected)
    exact = not QUANTISED.keys() & set(parts)
    if exact and max(distance) >= MOST_DISTANCE:
        return {"distance_in_spreads": distance, "error": "makes something else: not timed"}
    _forget_memory(world)
    lane = Blocks(warm(world, rig.picture))
    lane.run(rig.blocks)
    return {
        **_peak_memory(world),
        "distance_in_spreads": distance,
        "block_ms_median": 1e3 * lane.median,
        "fps_median": frames_per_block(world) / lane.median,
        "key_to_frame_ms": key_to_frame_ms(world, rig.picture),
        "kernels": [asdict(kernel) for kernel in slowest_kernels(lane.session)],
    }


def _forget_memory(world: World) -> None:
    """Have the peak of the GPU's memory begin with what is needed now."""
    gc.collect()
    if world.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _peak_memory(world: World) -> Figures:
    if world.device.type != "cuda":
        return {}
    return {"peak_memory_mb": torch.cuda.max_memory_reserved() / 1e6}


def walk(world: World, rig: Rig) -> list[Tensor]:
    """The latents of the first blocks, on the host."""
    session, blocks = world.start(rig.picture, seed=1), []
    for _ in range(COMPARED_BLOCKS):
        session.hold(idle(world))
        blocks.append(session.advance()[1].float().cpu())
    return blocks


def distances(made: list[Tensor], expected: list[Tensor]) -> list[float]:
    """Block by block, the root of the mean square difference in spreads of the expected."""
    return [
        float((a - b).square().mean().sqrt() / b.std()) for a, b in zip(made, expected, strict=True)
    ]


def sessions(rig: Rig, counts: tuple[int, ...] = (1, 2, 4)) -> Figures:
    """Several sessions in turn and together."""
    return {"rows": several_sessions(rig.make(), rig.picture, counts)}


def attention_ways(rig: Rig) -> Figures:
    """Milliseconds of each way to attend at this world's sizes."""
    return {**choose_attention(rig.make())}


def decoder_ways(rig: Rig) -> Figures:
    """A block's decoding in milliseconds: as it is, compiled, and by the tiny decoder."""
    world = rig.make()
    tiny = with_tiny_decoder(world, None)
    decoder = own_decoder(world)
    plain = _decoded(world)
    compile_decoder(decoder, world.spec, "force")
    compiled = _decoded(world)
    difference = (plain[1].int() - compiled[1].int()).abs().max()
    return {
        "plain_ms": plain[0],
        "compiled_ms": compiled[0],
        "compiled_difference_of_255": int(difference),
        "tiny_ms": _decoded(tiny)[0],
    }


def own_decoder(world: World) -> VAEDecoder:
    decoder = world.pipeline.decoder
    assert isinstance(decoder, VAEDecoder)
    return decoder


@torch.inference_mode()
def _decoded(world: World) -> tuple[float, Tensor]:
    """Milliseconds of a steady block's decoding, and the pictures of a fixed one."""
    spec, decoder = world.spec, world.pipeline.decoder
    draw = torch.Generator().manual_seed(1)
    shape = (1, spec.vae.latent_channels, spec.frames_per_block, *spec.latent_size)
    latents = torch.randn(shape, generator=draw).to(next(decoder.parameters()))
    memory = Memory()

    def decode() -> Tensor:
        return torch.cat(list(decoder.stream(latents, memory)), 1)

    decode()
    pictures = decode().cpu()
    return 1e3 * median_seconds(decode, world.device), pictures


@torch.inference_mode()
def convolution_ways(rig: Rig) -> Figures:
    """Each kind of the decoder's convolutions, done in the ways there are; milliseconds."""
    world = rig.make()
    found: Figures = {
        "causal": [{"shape": shape, **ways} for shape, ways in choose_convolutions(world).items()]
    }
    frames, rows, columns = 1, *world.spec.latent_size
    for name, layer in own_decoder(world).named_modules():
        if isinstance(layer, Upsample):
            frames *= 2 if layer.time_conv is not None else 1
            x = layer.conv.weight.new_ones(1, frames, rows, columns, layer.conv.in_channels)
            found[name] = _upsampling_ways(layer, x, world.device)
            rows, columns = 2 * rows, 2 * columns
    return found


def _upsampling_ways(layer: Upsample, x: Tensor, device: torch.device) -> Figures:
    pictures = x.flatten(0, 1).permute(0, 3, 1, 2)
    bare = Upsample(layer.conv.in_channels, temporal=False)
    bare.conv = layer.conv

    def repeating() -> Tensor:
        large = F.interpolate(pictures, scale_factor=2, mode="nearest")
        return F.conv2d(large, layer.conv.weight, layer.conv.bias, padding=1)

    return {
        "shape": [layer.conv.in_channels, layer.conv.out_channels, *x.shape[1:4]],
        "four_small_ms": 1e3 * median_seconds(lambda: bare(x, None), device),
        "repeating_ms": 1e3 * median_seconds(repeating, device),
    }


def starts(rig: Rig) -> Figures:
    """Cold starts in processes of their own: plain, then with an empty and a filled cache."""
    picture = rig.folder / "grey.png"
    rig.picture.save(picture)
    order = {"world": rig.arguments, "picture": str(picture), "accelerate": []}
    compiling = {**order, "accelerate": ["attention", "layers"]}
    plain: Figures = {**cold_start(order)}
    rig.keep(plain)
    return plain | compiled_starts(compiling, rig.folder / "cache")


def roofline(rig: Rig) -> Figures:
    """What each tag reaches under the machine's roof."""
    return {"points": roof_points(rig.make(), rig.picture)}


SECTIONS: dict[str, Callable[[Rig], Figures]] = {
    "steady": steady,
    "ways_to_be_faster": ways_to_be_faster,
    "attention_ways": attention_ways,
    "convolution_ways": convolution_ways,
    "sessions": sessions,
    "roofline": roofline,
    "starts": starts,
    "decoder_ways": decoder_ways,
}
