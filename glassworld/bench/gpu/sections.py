"""Sections of `glassworld bench gpu` that measure speed and memory; each also runs on a CPU."""

from __future__ import annotations

from collections.abc import Callable

from glassworld.bench.gpu.accelerations import FAST, compare_accelerations
from glassworld.bench.gpu.cold_starts import compare_cold_starts
from glassworld.bench.gpu.context import BenchContext
from glassworld.bench.gpu.layer_variants import (
    compare_attention,
    compare_convolutions,
    compare_decoders,
)
from glassworld.bench.gpu.matmul_variants import compare_matmuls
from glassworld.bench.latency import key_to_frame_ms, throughput_by_sessions
from glassworld.bench.matmul import matmul_share
from glassworld.bench.reference.world import eager_world
from glassworld.bench.roofline import roofline_points
from glassworld.bench.section_runner import Figures
from glassworld.bench.steady_state import steady_state, warm_session
from glassworld.engine.acceleration.parts import accelerate

SESSION_ROUNDS = 4


def measure_steady_state(context: BenchContext) -> Figures:
    """Measure the fast world beside its eager baseline; stages, latency and memory."""
    world = context.build_world()
    baseline = eager_world(world)
    world = accelerate(world, FAST)
    session = warm_session(world, context.start_image)
    eager = warm_session(baseline, context.start_image)
    return {
        **steady_state(session, eager, context.blocks),
        "products": matmul_share(session),
        "session_mb": session.state.nbytes / 1e6,
        "key_to_frame_ms": key_to_frame_ms(session),
    }


def measure_sessions(context: BenchContext, counts: tuple[int, ...] = (1, 2, 4)) -> Figures:
    """Measure several sessions with kernels alone, because batches are not captured in graphs."""
    world = context.build_world()
    world = accelerate(world, ["kernels"])
    session = warm_session(world, context.start_image)
    return {"rows": throughput_by_sessions(session, counts, SESSION_ROUNDS)}


def measure_roofline(context: BenchContext) -> Figures:
    """Measure what each tag reaches of the peak rates."""
    session = warm_session(context.build_world(), context.start_image)
    return {"points": roofline_points(session)}


SECTIONS: dict[str, Callable[[BenchContext], Figures]] = {
    "steady_state": measure_steady_state,
    "accelerations": compare_accelerations,
    "matmul_variants": compare_matmuls,
    "attention_variants": compare_attention,
    "convolution_variants": compare_convolutions,
    "decoder_variants": compare_decoders,
    "sessions": measure_sessions,
    "roofline": measure_roofline,
    "cold_starts": compare_cold_starts,
}
