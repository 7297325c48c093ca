"""The flight recorder's cost: a block with it and without it, side by side, and while it writes."""

from __future__ import annotations

import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from glassworld.bench.steady_state import idle_action, warm_session
from glassworld.engine.checkpoint.options import LoadOptions
from glassworld.engine.runtime.device import synchronize
from glassworld.engine.session import Session
from glassworld.files import replacing, writable_file
from glassworld.play.server_state import open_world
from glassworld.play.traces.flight_flag import DEFAULT_SECONDS
from glassworld.profiling.flight_recorder import TagRing, write_flight_recording
from glassworld.profiling.metadata import machine
from glassworld.profiling.stage_timer import StageTimer
from glassworld.profiling.tags import listen, tag
from glassworld.progress import show_activity

Figures = dict[str, Any]

LIMIT = 0.01
"""The recorder is on by default because it costs less than this share of a block."""

VARIANTS = ("off", "on", "writing")
"""As live play without a recorder, with one, and with one that writes a recording meanwhile."""

TAGS, REPEATS = 20_000, 5
"""How often a tag is opened and closed, and how often that is timed: the best time counts."""


def measure_flight_recorder(load: LoadOptions, rounds: int, json_file: Path | None) -> Figures:
    """Measure a block of a live session in each variant, `rounds` times in turn, and print it."""
    if json_file is not None:
        writable_file(json_file)
    console = Console()
    loaded = open_world(load)
    with show_activity(console, "measuring blocks with and without the flight recorder"):
        session = warm_session(loaded.world, loaded.images[0].image)
        figures = {"machine": machine(), **time_variants(session, rounds), "tag_ns": tag_cost_ns()}
    for line in summary_lines(figures):
        console.print(line, highlight=False, soft_wrap=True)
    if json_file is not None:
        with replacing(json_file) as partial_file:
            partial_file.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    return figures


def time_variants(session: Session, rounds: int) -> Figures:
    """Return the milliseconds of a block in each variant, with medians and their ratios to "off".

    The variants take turns, each round in another order, so that whatever else the machine does
    disturbs all of them alike. `tags` is how many tags a block has.
    """
    ring = TagRing(DEFAULT_SECONDS)
    block_ms: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    ways: dict[str, Callable[[], AbstractContextManager[object]]]
    ways = {"off": ExitStack, "on": partial(_recording, ring), "writing": partial(_writing, ring)}
    for number in range(rounds):
        for turn in range(len(VARIANTS)):
            variant = VARIANTS[(number + turn) % len(VARIANTS)]
            with ways[variant]():
                block_ms[variant].append(1e3 * _block_seconds(session))
    medians = {variant: statistics.median(times) for variant, times in block_ms.items()}
    return {
        "block_ms": block_ms,
        "block_ms_median": medians,
        "ratio": {variant: median / medians["off"] for variant, median in medians.items()},
        "tags": _count_tags(session),
    }


def _block_seconds(session: Session) -> float:
    """Return the seconds of a block, timed in stages as in live play."""
    synchronize(session.world.device)
    stop = listen(StageTimer(partial(synchronize, session.world.device)))
    started = time.perf_counter()
    session.step(idle_action(session.world))
    synchronize(session.world.device)
    seconds = time.perf_counter() - started
    stop()
    return seconds


@contextmanager
def _recording(ring: TagRing) -> Iterator[None]:
    stop = listen(ring)
    try:
        yield
    finally:
        stop()


@contextmanager
def _writing(ring: TagRing) -> Iterator[None]:
    """Record, and write one recording, which the generating thread does not wait for."""
    with tempfile.TemporaryDirectory() as folder, _recording(ring):
        path, until = Path(folder) / "trace.json.gz", time.perf_counter()
        writer = threading.Thread(
            target=write_flight_recording, args=(path, ring, until, [], {}, {})
        )
        writer.start()
        yield
        writer.join()


def _count_tags(session: Session) -> int:
    closed: list[str] = []
    stop = listen(lambda pattern, fields, start, end: closed.append(pattern))
    session.step(idle_action(session.world))
    stop()
    return len(closed)


def tag_cost_ns() -> dict[str, float]:
    """Return the nanoseconds of processor time of a tag with two numbers, by who listens.

    "timed" has one listener that does nothing: in live play the stage timer always listens.
    """

    def ignore(pattern: str, fields: dict[str, Any], start: float, end: float) -> None:
        pass

    ring = TagRing(1)
    return {
        "silent": _nanoseconds(()),
        "timed": _nanoseconds((ignore,)),
        "recorded": _nanoseconds((ignore, ring)),
    }


def _nanoseconds(listeners: tuple[Callable[..., None], ...]) -> float:
    times = []
    with ExitStack() as stack:
        for listener in listeners:
            stack.callback(listen(listener))
        for _ in range(REPEATS):
            started = time.thread_time()  # other processes disturb it less than the clock
            for number in range(TAGS):
                with tag("Step_{block}_{step}", block=3, step=number):
                    pass
            times.append(time.thread_time() - started)
    return 1e9 * min(times) / TAGS


def summary_lines(figures: Figures) -> list[str]:
    """Return what the terminal shows of the figures."""
    medians, ratio, tag_ns = figures["block_ms_median"], figures["ratio"], figures["tag_ns"]
    added = tag_ns["recorded"] - tag_ns["timed"]
    share = figures["tags"] * added / 1e6 / medians["off"]
    rounds = len(figures["block_ms"]["off"])
    return [
        f"a block, median of {rounds}: {medians['off']:.1f} ms off, {medians['on']:.1f} ms on "
        f"({ratio['on']:.3f}), {medians['writing']:.1f} ms while a recording is written "
        f"({ratio['writing']:.3f})",
        f"a tag: {tag_ns['silent']:.0f} ns without listeners, {tag_ns['timed']:.0f} ns as live "
        f"play times it, {tag_ns['recorded']:.0f} ns with the recorder: {added:.0f} ns more",
        f"{figures['tags']} tags a block: the recorder costs {share:.3%} of it (limit {LIMIT:.0%})",
    ]
