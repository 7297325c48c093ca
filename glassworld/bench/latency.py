"""Latency and throughput of play: from a key to its first frame, and several sessions at once."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from glassworld.bench.steady_state import frames_per_block, idle, warm
from glassworld.engine.batch import SessionBatch
from glassworld.engine.runtime.device import synchronize
from glassworld.engine.runtime.transfer import HostCopy
from glassworld.engine.world import Picture, World
from glassworld.play.images import encode_images

ROUNDS = 8
KEYS = 10


def key_to_frame_ms(world: World, picture: Picture) -> dict[str, float]:
    """From an action that comes while the device is idle to its first frame, encoded to be sent.

    What the network, the browser and the queue of frames add comes on top. The first frame is
    sent while the others are still decoded.
    """
    session = warm(world, picture)
    taken: list[float] = []

    def send(part: HostCopy) -> None:
        if len(taken) <= index:
            encode_images(part.wait()[0, :1].numpy(), "jpeg")
            taken.append(1e3 * (time.perf_counter() - began))

    for index in range(KEYS):
        control = world.space.controls[index % len(world.space.controls)]
        synchronize(world.device)  # the last block's update pass goes on after its frames
        began = time.perf_counter()
        session.step(world.space.press((control.name,)), send)
    return {"median": statistics.median(taken), "worst": max(taken)}


def several_sessions(
    world: World, picture: Picture, counts: tuple[int, ...]
) -> list[dict[str, Any]]:
    """N sessions at once: frames per second of each, in turn and together, and memory of each."""
    rows = []
    for count in counts:
        sessions = [warm(world, picture) for _ in range(count)]
        held = [idle(world)] * count

        def in_turn() -> None:
            for session, action in zip(sessions, held, strict=True):  # noqa: B023
                session.step(action)

        row = {"sessions": count, "session_mb": sessions[0].state.tensors_bytes() / 1e6}
        row["fps_each_in_turn"] = frames_per_block(world) / _seconds(in_turn)
        batch = SessionBatch(sessions)
        row["fps_each_together"] = frames_per_block(world) / _seconds(lambda: batch.step(held))  # noqa: B023
        rows.append(row)
    return rows


def _seconds(make_blocks: Callable[[], object]) -> float:
    """The median time of a round; the first goes unmeasured."""
    taken = []
    for _ in range(ROUNDS + 1):
        began = time.perf_counter()
        make_blocks()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:])
