"""The steady state: how fast blocks follow one another once the window is full.

Decoding is always included. A run whose actions are known, live play and the baseline take turns
in one process, so that a busy machine disturbs all alike; what a block is made of is timed in
blocks of its own, because listening costs a little and on a GPU waits for the device.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field
from itertools import pairwise, repeat
from typing import Any

from glassworld.engine.actions.track import Action
from glassworld.engine.runtime.device import synchronize
from glassworld.engine.world import Picture, Session, World
from glassworld.profiling import registry as tags
from glassworld.profiling.tags import listen
from glassworld.specs import TIME_FACTOR

FEWEST_BLOCKS = 30
ROUNDS = 3
LISTENED_BLOCKS = 6

STAGES = {
    "denoising": tags.DENOISING_STEP,
    "decode": tags.VAE_DECODE,
    "update": tags.UPDATE_CACHE,
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
    """Seconds of each block of a session, in order."""

    session: Session
    seconds: list[float] = field(default_factory=list)

    def run(self, count: int) -> None:
        """As in live play: an action, then its block."""
        action = idle(self.session.world)
        for _ in range(count):
            began = time.perf_counter()
            self.session.step(action)
            self.seconds.append(time.perf_counter() - began)

    def run_ahead(self, count: int) -> None:
        """As where all actions are known: the first and the last have no neighbour to overlap."""
        held = repeat(idle(self.session.world), count + 3)
        ends = [time.perf_counter() for _ in self.session.run(held)]
        self.seconds += [end - start for start, end in pairwise(ends[1:-1])]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def idle(world: World) -> Action:
    return world.space.press(())


def frames_per_block(world: World) -> int:
    """Pixel frames of every block but the first."""
    return TIME_FACTOR * world.spec.frames_per_block


def warm(world: World, picture: Picture) -> Session:
    """A session whose window is full and whose encoder has forgotten the picture."""
    session = world.start(picture)
    spec = world.spec
    full = max(spec.dit.window, spec.vae.encoder_receptive_field + 2)
    while session.state.start < full + spec.frames_per_block:
        session.step(idle(world))
    return session


def steady_state(world: World, baseline: World, picture: Picture, blocks: int) -> dict[str, Any]:
    """Frames per second of a world and of its baseline, and what their blocks are made of."""
    ahead, live, other = (Blocks(warm(each, picture)) for each in (world, world, baseline))
    bounds = [round(blocks * part / ROUNDS) for part in range(ROUNDS + 1)]
    for start, end in pairwise(bounds):
        ahead.run_ahead(end - start)
        live.run(end - start)
        other.run(end - start)
    frames = frames_per_block(world)
    deadline = frames / world.spec.frame_rate
    ordered = sorted(ahead.seconds)
    return {
        "blocks": blocks,
        "fps_median": frames / ahead.median,
        "fps_slowest_tenth": frames / ordered[-max(1, len(ordered) // 10)],
        "block_ms_median": 1e3 * ahead.median,
        "block_ms_spread": 1e3 * (ordered[3 * len(ordered) // 4] - ordered[len(ordered) // 4]),
        "block_ms": [1e3 * seconds for seconds in ahead.seconds],
        "live_fps_median": frames / live.median,
        "deadline_misses": sum(seconds > deadline for seconds in live.seconds),
        "baseline_fps_median": frames / other.median,
        "speedup": other.median / ahead.median,
        "live_speedup": other.median / live.median,
        "stages_ms": times_of(live.session, STAGES),
        "layer_kinds_ms": times_of(live.session, LAYER_KINDS),
        "baseline_stages_ms": times_of(other.session, STAGES),
    }


def times_of(session: Session, kinds: dict[str, str]) -> dict[str, float]:
    """Milliseconds of each kind of tag in a block, the median of a few blocks.

    The device is waited for at each one's end. What a captured graph hides takes no time of its
    own: it is left out.
    """
    blocks: list[dict[str, float]] = []
    names = {pattern: name for name, pattern in kinds.items()}
    device = session.world.device

    def heard(pattern: str, fields: dict[str, Any], start: float, end: float) -> None:
        if pattern in names:
            if device.type == "cuda":
                synchronize(device)
                end = time.perf_counter()
            blocks[-1][names[pattern]] += end - start

    stop = listen(heard)
    try:
        for _ in range(LISTENED_BLOCKS):
            blocks.append(dict.fromkeys(kinds, 0.0))
            session.step(idle(session.world))
    finally:
        stop()
    medians = {name: statistics.median(block[name] for block in blocks) for name in kinds}
    return {name: 1e3 * seconds for name, seconds in medians.items() if seconds}
