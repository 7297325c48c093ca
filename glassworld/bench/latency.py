"""Latency and throughput of play: from a key to its first frame, and several sessions at once."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from glassworld.bench.steady_state import fork, frames_per_block, idle_action
from glassworld.engine.batch import SessionBatch
from glassworld.engine.runtime.device import synchronize
from glassworld.engine.runtime.transfer import HostCopy
from glassworld.engine.session import Session
from glassworld.play.images import encode_images

ROUNDS = 8
KEYS = 10


def key_to_frame_ms(session: Session) -> dict[str, float]:
    """Measure from an action that arrives while the device is idle to its first encoded frame.

    Network, browser and queued frames come on top. The first frame is sent while the others are
    still decoded. `session` stays where it is.
    """
    session = fork(session)
    world = session.world
    latencies: list[float] = []

    def send(chunk: HostCopy) -> None:
        if len(latencies) <= index:
            encode_images(chunk.wait()[0, :1].numpy(), "jpeg")
            latencies.append(1e3 * (time.perf_counter() - began))

    for index in range(KEYS):
        control = world.space.controls[index % len(world.space.controls)]
        synchronize(world.device)  # the last block's update pass continues after its frames
        began = time.perf_counter()
        session.step(world.space.press((control.name,)), send)
    return {"median": statistics.median(latencies), "worst": max(latencies)}


def throughput_by_sessions(
    session: Session, counts: Sequence[int], rounds: int = ROUNDS
) -> list[dict[str, Any]]:
    """Measure N sessions at once: frames per second of each, in turn and in one batch; memory.

    Every session continues from where `session` is, which stays there.
    """
    return [_throughput([fork(session) for _ in range(count)], rounds) for count in counts]


def _throughput(sessions: list[Session], rounds: int) -> dict[str, Any]:
    world = sessions[0].world
    actions = [idle_action(world)] * len(sessions)

    def step_in_turn() -> None:
        for session, action in zip(sessions, actions, strict=True):
            session.step(action)

    row = {"sessions": len(sessions), "session_mb": sessions[0].state.nbytes / 1e6}
    row["fps_each_in_turn"] = frames_per_block(world) / _median_round(step_in_turn, rounds)
    batch = SessionBatch(sessions)
    seconds = _median_round(lambda: batch.step(actions), rounds)
    row["fps_each_together"] = frames_per_block(world) / seconds
    return row


def _median_round(step: Callable[[], object], rounds: int) -> float:
    """Return the median seconds of a round; the first is not measured."""
    seconds = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])
