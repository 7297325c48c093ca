"""What `scripts/gpu_check` measures, section by section; every one also runs on a CPU."""

from __future__ import annotations

from collections.abc import Callable

from glassworld.bench.gpu.accelerations import FAST, ways_to_be_faster
from glassworld.bench.gpu.cold_starts import starts
from glassworld.bench.gpu.context import BenchContext, Figures
from glassworld.bench.gpu.layer_variants import attention_ways, convolution_ways, decoder_ways
from glassworld.bench.gpu.matmul_variants import product_ways
from glassworld.bench.latency import key_to_frame_ms, several_sessions
from glassworld.bench.matmul import products_share
from glassworld.bench.reference.world import as_released
from glassworld.bench.roofline import roof_points
from glassworld.bench.steady_state import steady_state, warm
from glassworld.engine.acceleration.parts import accelerate


def steady(rig: BenchContext) -> Figures:
    """The fast world beside its eager baseline; stages and memory of a session."""
    world = rig.make()
    baseline = as_released(world)
    accelerate(world, FAST)
    figures = steady_state(world, baseline, rig.picture, rig.blocks)
    session = warm(world, rig.picture)
    return {
        **figures,
        "products": products_share(session),
        "session_mb": session.state.tensors_bytes() / 1e6,
        "key_to_frame_ms": key_to_frame_ms(world, rig.picture),
    }


def sessions(rig: BenchContext, counts: tuple[int, ...] = (1, 2, 4)) -> Figures:
    """Several sessions in turn and together, as fast as batches can be: they are not captured."""
    world = rig.make()
    accelerate(world, ["kernels"])
    return {"rows": several_sessions(world, rig.picture, counts)}


def roofline(rig: BenchContext) -> Figures:
    """What each tag reaches under the machine's roof."""
    return {"points": roof_points(rig.make(), rig.picture)}


SECTIONS: dict[str, Callable[[BenchContext], Figures]] = {
    "steady": steady,
    "ways_to_be_faster": ways_to_be_faster,
    "product_ways": product_ways,
    "attention_ways": attention_ways,
    "convolution_ways": convolution_ways,
    "decoder_ways": decoder_ways,
    "sessions": sessions,
    "roofline": roofline,
    "starts": starts,
}
