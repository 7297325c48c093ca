"""`glassworld bench plan`: from measured block times to players per device, devices and cost."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from glassworld.bench.plan.fleet_model import FleetSize, fleet_for, simulate_arrivals
from glassworld.bench.plan.server_model import (
    MOST_SESSIONS,
    BatchTimes,
    ServerPrediction,
    find_seats,
    predict_server,
)
from glassworld.bench.section_runner import Figures
from glassworld.bench.steady_state import fork, idle_action, warm_session
from glassworld.engine.batch import SessionBatch
from glassworld.engine.checkpoint.locate import locate_world
from glassworld.engine.checkpoint.options import LoadOptions
from glassworld.engine.session import Session
from glassworld.errors import InputError
from glassworld.files import replacing, writable_file
from glassworld.play.server_state import open_world
from glassworld.specs import TIME_FACTOR, WorldSpec

MEASURED_SESSIONS = (1, 2, 4)
MEASURED_BLOCKS = 12

SIMULATED_PLAYERS = 1000
"""The largest fleet that is simulated as well; for more, the formula is exact enough."""


@dataclass(frozen=True)
class PlanOptions:
    """The flags of the command line; see its help for each."""

    players: tuple[int, ...] = (1_000, 100_000, 1_000_000)
    target: float = 0.99
    refused: float = 0.01
    block_ms: str | None = None
    price: float | None = None
    check: Path | None = None
    json_file: Path | None = None
    load: LoadOptions = field(default_factory=LoadOptions)


def run_plan(options: PlanOptions) -> Figures:
    """Print and return the plan; raise `InputError` for values that make none."""
    if not (0 < options.target < 1 and 0 < options.refused < 1):
        raise InputError("target, refused: must be shares between 0 and 1")
    if any(players < 1 for players in options.players):
        raise InputError("players: must be positive")
    if options.json_file is not None:
        writable_file(options.json_file)
    checked = None if options.check is None else _read_check(options.check)
    spec = locate_world(options.load).spec
    given = options.block_ms
    times = measure_times(options.load) if given is None else read_times(given)
    rate, frames = spec.frame_rate, spec.frames_per_block * TIME_FACTOR
    predictions = find_seats(times, rate, frames, options.target)
    seats = predictions[-1].sessions if predictions else 0
    fleets = [
        fleet_for(players, seats, options.refused, options.price)
        for players in (options.players if seats else ())
    ]
    figures: Figures = {
        "block_ms": {str(size): 1e3 * s for size, s in sorted(times.median.items())},
        "spread": list(times.spread),
        "target": options.target,
        "seats_per_device": seats,
        "servers": [prediction._asdict() for prediction in predictions],
        "fleets": [fleet._asdict() for fleet in fleets],
        "simulated_refused": _simulated_refusals(fleets),
    }
    if checked is not None:
        figures["check"] = compare(checked, predict_server(times, checked["watched"], rate, frames))
    _print(figures, predictions, fleets, spec, Console())
    if options.json_file is not None:
        with replacing(options.json_file) as partial:
            partial.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return figures


def read_players(text: str) -> tuple[int, ...]:
    """Return numbers joined by commas; raise `InputError` for anything else."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"players {text!r:.80}: must be numbers joined by commas") from None


def read_times(text: str) -> BatchTimes:
    """Return the times in a text such as "1:132,2:201": sessions and milliseconds of a block."""
    median: dict[int, float] = {}
    for part in text.split(","):
        size, colon, milliseconds = part.partition(":")
        try:
            sessions, seconds = int(size), float(milliseconds) / 1e3
        except ValueError:
            sessions = seconds = 0
        if not colon or sessions < 1 or not 0 < seconds < 3600:
            raise InputError(
                f"block_ms {part!r:.40}: must be SESSIONS:MILLISECONDS, such as 1:132,2:201"
            )
        median[sessions] = seconds
    return BatchTimes(median)


def measure_times(load: LoadOptions) -> BatchTimes:
    """Measure the blocks of one session and of batches on this machine, windows full."""
    world, images = open_world(load)
    session = warm_session(world, images[0].image)
    seconds = {
        size: _block_seconds([fork(session) for _ in range(size)]) for size in MEASURED_SESSIONS
    }
    median = {size: statistics.median(values) for size, values in seconds.items()}
    spread = [value / median[size] for size, values in seconds.items() for value in values]
    return BatchTimes(median, tuple(spread))


def _block_seconds(sessions: Sequence[Session]) -> list[float]:
    batch, action = SessionBatch(sessions), idle_action(sessions[0].world)
    seconds = []
    for _ in range(MEASURED_BLOCKS + 1):
        began = time.perf_counter()
        batch.step([action] * len(sessions))
        seconds.append(time.perf_counter() - began)
    return seconds[1:]


def compare(measured: Figures, predicted: ServerPrediction) -> Figures:
    """Return the load generator's figures beside the model's."""
    names = ("deadline_attainment", "stalls_per_minute", "input_to_frame_ms")
    own = predicted._asdict()
    return {
        "sessions": predicted.sessions,
        **{name: {"measured": measured[name], "predicted": own[name]} for name in names},
    }


def _read_check(path: Path) -> Figures:
    """Return the figures that `bench load --json` has written."""
    try:
        figures: Any = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(figures["watched"], int) or "input_to_frame_ms" not in figures:
            raise KeyError("watched")
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{path}: not the JSON of glassworld bench load") from None
    return dict(figures)


def _simulated_refusals(fleets: Sequence[FleetSize]) -> dict[str, float]:
    """Return the share of refused players that a simulation finds, for the smaller fleets."""
    return {
        str(fleet.players): simulate_arrivals(fleet.seats, fleet.players)
        for fleet in fleets
        if fleet.players <= SIMULATED_PLAYERS
    }


def _print(
    figures: Figures,
    predictions: Sequence[ServerPrediction],
    fleets: Sequence[FleetSize],
    spec: WorldSpec,
    console: Console,
) -> None:
    def line(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    block = spec.frames_per_block * TIME_FACTOR / spec.frame_rate
    times = ", ".join(f"{size} {ms:.0f} ms" for size, ms in figures["block_ms"].items())
    line(f"block time by sessions: {times}; a block plays for {1e3 * block:.0f} ms")
    share = f"{100 * figures['target']:g} % of frames on time"
    if not predictions:
        line(f"no player of this device gets {share}")
    for prediction in predictions:
        if prediction.sessions & (prediction.sessions - 1) and prediction is not predictions[-1]:
            continue  # 1, 2, 4, ... and the last
        latency = prediction.input_to_frame_ms.get("p95", 0)
        line(
            f"{prediction.sessions} per device: {100 * prediction.deadline_attainment:.2f} % on "
            f"time, input to frame p95 {latency:.0f} ms, device {100 * prediction.busy:.0f} % busy"
        )
    if predictions and predictions[-1].sessions == MOST_SESSIONS:
        line(f"no more than {MOST_SESSIONS} players were simulated; the device may take more")
    for fleet in fleets:
        cost = "" if fleet.cost_per_hour is None else f", {fleet.cost_per_hour:,.0f} per hour"
        line(f"{fleet.players:,} players: {fleet.seats:,} seats, {fleet.devices:,} devices{cost}")
    for players, refused in figures["simulated_refused"].items():
        line(f"simulated with {int(players):,} players: {100 * refused:.2f} % are refused")
    if "check" in figures:
        line(json.dumps(figures["check"], indent=1))
