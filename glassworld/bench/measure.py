"""The benchmark's measurements: steady state, stages, sessions, the cold start.

Steady state begins when the window is full. Decoding is always included; every figure is a
median over blocks, and the baseline runs in the same process right beside.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch

from glassworld.bench.conv3d import with_conv3d
from glassworld.engine.actions import Action
from glassworld.engine.world import Picture, Session, World
from glassworld.profiling import registry as tags
from glassworld.profiling.tags import listen
from glassworld.specs import TIME_FACTOR

FEWEST_BLOCKS = 30
ROUNDS = 3  # ours and the baseline alternate, so that a busy machine disturbs both alike

STAGES = {
    "denoising": tags.DENOISING_STEP,
    "update": tags.UPDATE_CACHE,
    "decode": tags.VAE_DECODE,
}
LAYER_KINDS = {
    "self attention": tags.SELF_ATTENTION,
    "cross attention": tags.CROSS_ATTENTION,
    "mouse attention": tags.MOUSE_ATTENTION,
    "keyboard attention": tags.KEYBOARD_ATTENTION,
    "feed forward": tags.FEED_FORWARD,
    "head": tags.HEAD,
}


@dataclass
class Blocks:
    """Seconds of each block, and of each kind of tag inside them."""

    seconds: list[float] = field(default_factory=list)
    tags: dict[str, float] = field(default_factory=dict)

    def fps(self, frames: int) -> float:
        return frames / statistics.median(self.seconds)


def _idle(world: World) -> Action:
    return world.space.press("")


def _warm(world: World, picture: Picture) -> Session:
    """A session whose window is full and whose encoder has forgotten the picture."""
    session = world.start(picture)
    spec = world.spec
    full = max(spec.dit.window, spec.vae.encoder_reach + 2)
    while session.state.start < full:
        session.step(_idle(world))
    return session


def _run(session: Session, count: int, into: Blocks) -> None:
    """Time `count` blocks, and by listening what they are made of."""

    def heard(pattern: str, fields: dict[str, Any], start: float, end: float) -> None:
        into.tags[pattern] = into.tags.get(pattern, 0.0) + end - start

    action = _idle(session.world)
    stop = listen(heard)
    try:
        for _ in range(count):
            began = time.perf_counter()
            session.step(action)
            into.seconds.append(time.perf_counter() - began)
    finally:
        stop()


def steady_state(world: World, picture: Picture, blocks: int) -> dict[str, Any]:
    """Frames per second of the world and of its baseline, block for block in turns."""
    sessions = [_warm(each, picture) for each in (world, with_conv3d(world))]
    ours, baseline = Blocks(), Blocks()
    bounds = [round(blocks * part / ROUNDS) for part in range(ROUNDS + 1)]
    for start, end in pairwise(bounds):
        for session, into in zip(sessions, (ours, baseline), strict=True):
            _run(session, end - start, into)
    frames = TIME_FACTOR * world.spec.frames_per_block
    deadline = frames / world.spec.frame_rate
    ordered = sorted(ours.seconds)
    return {
        "blocks": blocks,
        "fps_median": ours.fps(frames),
        "fps_slowest_tenth": frames / ordered[-max(1, len(ordered) // 10)],
        "block_ms_median": 1e3 * statistics.median(ordered),
        "block_ms_spread": 1e3 * (ordered[3 * len(ordered) // 4] - ordered[len(ordered) // 4]),
        "deadline_misses": sum(seconds > deadline for seconds in ordered),
        "baseline_fps_median": baseline.fps(frames),
        "speedup": baseline.fps(frames) and ours.fps(frames) / baseline.fps(frames),
        "stages_ms": _per_block(ours, STAGES),
        "layer_kinds_ms": _per_block(ours, LAYER_KINDS),
        "baseline_stages_ms": _per_block(baseline, STAGES),
    }


def _per_block(blocks: Blocks, kinds: dict[str, str]) -> dict[str, float]:
    count = len(blocks.seconds)
    return {name: 1e3 * blocks.tags.get(tag, 0.0) / count for name, tag in kinds.items()}


def sessions_in_turn(
    world: World, picture: Picture, counts: tuple[int, ...]
) -> list[dict[str, Any]]:
    """N sessions taking turns on the device: frames per second of each, memory of each."""
    rows = []
    for count in counts:
        sessions = [_warm(world, picture) for _ in range(count)]
        rounds, action = 8, _idle(world)
        began = time.perf_counter()
        for _ in range(rounds):
            for session in sessions:
                session.step(action)
        seconds = (time.perf_counter() - began) / rounds
        rows.append(
            {
                "sessions": count,
                "fps_each": TIME_FACTOR * world.spec.frames_per_block / seconds,
                "session_mb": sessions[0].state.tensors_bytes() / 1e6,
            }
        )
    return rows


COLD_START = """
import glassworld
world = glassworld.load_world({arguments})
world.start({picture!r}).step(world.space.press(""))
"""


def first_frames_seconds(arguments: dict[str, Any], picture: str) -> float:
    """From the start of a new process to the frames of its first block."""
    given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    program = COLD_START.format(arguments=given, picture=picture)
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True)
    return time.perf_counter() - began


def memory(world: World) -> dict[str, float]:
    """Megabytes of the weights, of one session's rings, and the process's peak."""
    networks = world.networks
    parts = (networks.dit, networks.encoder, networks.decoder, networks.vision)
    weights = sum(weight.nbytes for part in parts for weight in part.parameters())
    if world.device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(world.device) / 1e6
    else:
        scale = 1e6 if sys.platform == "darwin" else 1e3  # bytes there, kilobytes elsewhere
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale
    return {"weights_mb": weights / 1e6, "peak_memory_mb": peak}
