"""The engine's own number of threads against fixed ones, alone and beside a busy process.

Each number has a process of its own, as a user would set it: by OMP_NUM_THREADS. The processes take
turns, so that whatever else the machine does disturbs all of them alike.

    python -m glassworld.bench.threads.comparison REQUEST

is such a process. For each kind of run that it reads from its input, it makes one measurement and
prints it.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import IO, Any

from glassworld.bench.cold_start import accelerated, process_failure
from glassworld.bench.section_runner import Figures, Report
from glassworld.bench.steady_state import frames_per_block, idle_action, warm_session
from glassworld.engine.checkpoint.load import load_world
from glassworld.engine.runtime.threads import SETTINGS
from glassworld.engine.session import Session

AUTOMATIC = "automatic"
KINDS = ("generate", "live")
CONDITIONS = ("idle", "busy")

BUSY_PROGRAM = "import os; parent = os.getppid()\nwhile os.getppid() == parent: pass"
"""Ends with the benchmark, however that ends."""

ROUNDS = 3
SECONDS = 3.0
"""Least time of a measurement. One in live play follows a third of it that is not measured."""

BLOCKS = 8
"""Blocks of a call of `generate`, preparation and first block included."""


def fixed_counts(cores: int) -> list[int]:
    """Return the fixed numbers of threads to compare with: all cores, half of them, ..., one."""
    counts = [cores]
    while counts[-1] > 1:
        counts.append(counts[-1] // 2)
    return counts[::-1]


def compare_threads(
    request: dict[str, Any], counts: Sequence[int], report: Report, rounds: int = ROUNDS
) -> Figures:
    """Measure frames per second: `[condition][kind][number of threads]`, medians of the rounds.

    `request` is that of `cold_start`, with the `seconds` of a measurement.
    """
    figures: Figures = {}
    with ExitStack() as stack:
        numbers = [*map(str, counts), AUTOMATIC]
        lanes = {number: stack.enter_context(_lane(request, number)) for number in numbers}
        for lane in lanes.values():
            lane.wait_until_ready()
        for condition in CONDITIONS:
            if condition == "busy":
                stack.enter_context(_busy_process())
            seen: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
            for _ in range(rounds):
                for kind in KINDS:
                    for number, lane in lanes.items():
                        seen[kind, number].append(lane.measure(kind))
            figures[condition] = {
                kind: {number: statistics.median(seen[kind, number]) for number in numbers}
                for kind in KINDS
            }
            report(f"threads: {condition}: {summarize_condition(figures[condition])}")
    return figures


def automatic_share(fps: dict[str, float]) -> float:
    """Return the automatic number's frames per second, as a share of the best fixed one's."""
    return fps[AUTOMATIC] / max(value for number, value in fps.items() if number != AUTOMATIC)


def summarize_condition(figures: dict[str, dict[str, float]]) -> str:
    """Return the frames per second of each kind of run and number of threads as one line."""
    return "; ".join(
        f"{kind} "
        + ", ".join(f"{fps:.1f} ({number})" for number, fps in by_number.items())
        + f", {100 * automatic_share(by_number):.0f} % of the best"
        for kind, by_number in figures.items()
    )


@contextmanager
def _busy_process() -> Iterator[None]:
    """Keep one core busy."""
    process = subprocess.Popen([sys.executable, "-c", BUSY_PROGRAM])
    try:
        yield
    finally:
        process.kill()
        process.wait()


class _Lane:
    """A process that measures with one number of threads when it is its turn."""

    def __init__(self, process: subprocess.Popen[str], errors: IO[str]) -> None:
        self._process, self._errors = process, errors

    def wait_until_ready(self) -> None:
        """Wait until the world is loaded and a session is warm."""
        self._read()

    def measure(self, kind: str) -> float:
        """Return the frames per second of one kind of run."""
        assert self._process.stdin is not None
        self._process.stdin.write(kind + "\n")
        self._process.stdin.flush()
        return float(self._read())

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise process_failure("threads", self._errors)
        return line


@contextmanager
def _lane(request: dict[str, Any], number: str) -> Iterator[_Lane]:
    """Start the process of a number of threads; it ends with its input."""
    environment = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    if number != AUTOMATIC:
        environment["OMP_NUM_THREADS"] = number
    command = [sys.executable, "-m", __name__, json.dumps(request)]
    pipe = subprocess.PIPE
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as errors,
        subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=errors, encoding="utf-8", env=environment
        ) as process,
    ):
        try:
            yield _Lane(process, errors)
        finally:
            process.kill()


def _main() -> None:
    request = json.loads(sys.argv[1])
    world = accelerated(load_world(**request["world"]), request)
    session = warm_session(world, request["picture"])
    measurements = {
        "generate": lambda: _generate_fps(session, request["picture"], request["seconds"]),
        "live": lambda: _live_fps(session, request["seconds"]),
    }
    print("ready", flush=True)
    for kind in sys.stdin:
        print(measurements[kind.strip()](), flush=True)


def _generate_fps(session: Session, picture: str, seconds: float) -> float:
    """Return the frames per second of calls of `generate`, from start to end."""
    world = session.world
    frames, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        frames += len(world.generate(picture, BLOCKS * world.spec.frames_per_block).frames)
    return frames / (time.perf_counter() - began)


def _live_fps(session: Session, seconds: float) -> float:
    """Return the frames per second of blocks in live play, after some that are not measured."""
    _run_live(session, seconds / 3)
    began = time.perf_counter()
    blocks = _run_live(session, seconds)
    return blocks * frames_per_block(session.world) / (time.perf_counter() - began)


def _run_live(session: Session, seconds: float) -> int:
    """Generate blocks until the time has passed, and return their number."""
    action, began, blocks = idle_action(session.world), time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        session.step(action)
        blocks += 1
    return blocks


if __name__ == "__main__":
    _main()
