"""Steady state: how fast blocks follow one another once the attention window is full.

Decoding is always included. Three lanes take turns in one process, so that a busy machine disturbs
all of them alike: a run whose actions are known in advance, live play, and the eager baseline. The
parts of a block are timed in blocks of their own: listening to tags costs a little, and on a GPU
it waits for the device.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise, repeat
from typing import Any

from glassworld.engine.actions.track import Action
from glassworld.engine.media.images import ImageSource
from glassworld.engine.runtime.device import synchronize
from glassworld.engine.session import Session
from glassworld.engine.world import World
from glassworld.profiling import registry as tags
from glassworld.profiling.tags import listen
from glassworld.specs import TIME_FACTOR, WorldSpec

MIN_BLOCKS = 6
"""Fewest blocks of a lane that give a median and a slowest tenth."""

ROUNDS = 3
TIMED_BLOCKS = 6

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
class BlockTimes:
    """A session and the seconds that each of its blocks took, in order."""

    session: Session
    seconds: list[float] = field(default_factory=list)

    def run_live(self, count: int) -> None:
        """Generate blocks as live play does: take an action, then generate its block."""
        action = idle_action(self.session.world)
        for _ in range(count):
            began = time.perf_counter()
            self.session.step(action)
            self.seconds.append(time.perf_counter() - began)

    def run_known(self, count: int) -> None:
        """Generate blocks whose actions are all known in advance.

        Three more blocks run: the first and the last have no neighbor to overlap with.
        """
        actions = repeat(idle_action(self.session.world), count + 3)
        ends = [time.perf_counter() for _ in self.session.run(actions)]
        self.seconds += [end - start for start, end in pairwise(ends[1:-1])]

    @property
    def median(self) -> float:
        """Median seconds of a block."""
        return statistics.median(self.seconds)


def idle_action(world: World) -> Action:
    """Return the action of a player who presses nothing."""
    return world.space.press(())


def frames_per_block(world: World) -> int:
    """Return the pixel frames of every block but the first."""
    return TIME_FACTOR * world.spec.frames_per_block


def warm_session(world: World, start_image: ImageSource) -> Session:
    """Start a session and run it until its window is full and its encoder forgot the image."""
    session = world.start(start_image)
    spec = world.spec
    full = max(spec.dit.window, spec.vae.encoder_receptive_field + 2)
    while session.state.start < full + spec.frames_per_block:
        session.step(idle_action(world))
    return session


def fork(session: Session) -> Session:
    """Return a session of its own that continues from where `session` is."""
    return Session(session.world, session.save())


def capture_passes(session: Session) -> None:
    """Run a session until all its passes are captured, if its world launches them as graphs.

    Every place in the attention window has a pass of its own, which is captured the second time it
    runs. Later would be too late: to time a tag inside a capture, one would have to wait for the
    device, which ends the capture with an error.
    """
    if session.world.plan.cuda_graphs:
        for _ in range(2 * _blocks_per_turn(session.world.spec)):
            session.step(idle_action(session.world))


def _blocks_per_turn(spec: WorldSpec) -> int:
    """Return after how many blocks the slots that a block is written to repeat."""
    window, frames = spec.dit.window, spec.frames_per_block
    rings = (window - spec.dit.sink, window)  # of self-attention, and of the action module
    return math.lcm(*(ring // math.gcd(ring, frames) for ring in rings))


def seconds_of_lanes(session: Session, baseline: Session) -> float:
    """Return the seconds that one block of each lane takes, to choose how many are affordable.

    `session` stays where it is; `baseline` moves on.
    """
    live, eager = BlockTimes(fork(session)), BlockTimes(baseline)
    live.run_live(1)
    eager.run_live(1)
    return 2 * live.median + eager.median


def steady_state(session: Session, baseline: Session, blocks: int) -> dict[str, Any]:
    """Measure frames per second of a warm session and its baseline, and the parts of a block.

    `session` stays where it is; `baseline` moves on.
    """
    known, live, eager = (BlockTimes(each) for each in (fork(session), fork(session), baseline))
    for lane in (known, live):
        capture_passes(lane.session)
    bounds = [round(blocks * part / ROUNDS) for part in range(ROUNDS + 1)]
    for start, end in pairwise(bounds):
        known.run_known(end - start)
        live.run_live(end - start)
        eager.run_live(end - start)
    frames = frames_per_block(session.world)
    deadline = frames / session.world.spec.frame_rate
    ordered = sorted(known.seconds)
    return {
        "blocks": blocks,
        "fps_median": frames / known.median,
        "fps_slowest_tenth": frames / ordered[-max(1, len(ordered) // 10)],
        "block_ms_median": 1e3 * known.median,
        "block_ms_spread": 1e3 * (ordered[3 * len(ordered) // 4] - ordered[len(ordered) // 4]),
        "block_ms": [1e3 * seconds for seconds in known.seconds],
        "live_fps_median": frames / live.median,
        "deadline_misses": sum(seconds > deadline for seconds in live.seconds),
        "baseline_fps_median": frames / eager.median,
        "speedup": eager.median / known.median,
        "live_speedup": eager.median / live.median,
        "stages_ms": tag_times_ms(live.session, STAGES),
        "layer_kinds_ms": tag_times_ms(live.session, LAYER_KINDS),
        "baseline_stages_ms": tag_times_ms(eager.session, STAGES),
    }


def tag_times_ms(session: Session, kinds: dict[str, str]) -> dict[str, float]:
    """Return the milliseconds of a block in each kind of tag: the median of a few blocks.

    `kinds` maps a name to a tag's pattern. The device is synchronized at the end of each tag. Tags
    hidden in a captured graph take no time and are left out.
    """
    blocks: list[dict[str, float]] = []
    names = {pattern: name for name, pattern in kinds.items()}
    device = session.world.device

    def add(pattern: str, fields: dict[str, Any], start: float, end: float) -> None:
        if pattern in names:
            if device.type == "cuda":
                synchronize(device)
                end = time.perf_counter()
            blocks[-1][names[pattern]] += end - start

    stop = listen(add)
    try:
        for _ in range(TIMED_BLOCKS):
            blocks.append(defaultdict(float))
            session.step(idle_action(session.world))
    finally:
        stop()
    medians = {name: statistics.median(block[name] for block in blocks) for name in kinds}
    return {name: 1e3 * seconds for name, seconds in medians.items() if seconds}
