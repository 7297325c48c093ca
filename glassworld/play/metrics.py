"""What the server counts, as Prometheus text."""

from __future__ import annotations

from dataclasses import dataclass, field

BUCKETS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0)
"""Upper bounds, in seconds, of the histogram of block times."""


@dataclass
class Metrics:
    """Counters of one server since it started."""

    players: int = 0
    refused: int = 0  # for want of a seat
    faults: int = 0  # connections closed for what they sent
    frames: int = 0
    stalls: int = 0
    block_seconds: float = 0.0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))

    def block(self, seconds: float) -> None:
        """Count a block that took `seconds` to make."""
        self.block_seconds += seconds
        place = next((i for i, bound in enumerate(BUCKETS) if seconds <= bound), len(BUCKETS))
        self.buckets[place] += 1

    def text(self, ready: bool, seats_taken: int, waiting: int, tasks: int) -> str:
        """Everything in the Prometheus text format."""
        lines = [
            *_metric("ready", "gauge", "1 once the world answers", int(ready)),
            *_metric("sessions", "gauge", "players connected", seats_taken),
            *_metric("queue", "gauge", "jobs that wait for the device or run on it", waiting),
            *_metric("tasks", "gauge", "asyncio tasks of the server, this request's too", tasks),
            *_metric("players_total", "counter", "players that were given a seat", self.players),
            *_metric("refused_total", "counter", "players refused for want of one", self.refused),
            *_metric("faults_total", "counter", "connections closed for bad input", self.faults),
            *_metric("frames_total", "counter", "frames sent", self.frames),
            *_metric("stalls_total", "counter", "times a player had to wait", self.stalls),
            "# HELP glassworld_block_seconds time to make a block",
            "# TYPE glassworld_block_seconds histogram",
        ]
        total = 0
        for bound, count in zip([*map(str, BUCKETS), "+Inf"], self.buckets, strict=True):
            total += count
            lines.append(f'glassworld_block_seconds_bucket{{le="{bound}"}} {total}')
        lines.append(f"glassworld_block_seconds_sum {self.block_seconds}")
        lines.append(f"glassworld_block_seconds_count {total}")
        return "\n".join(lines) + "\n"


def _metric(name: str, kind: str, meaning: str, value: float) -> tuple[str, str, str]:
    full = f"glassworld_{name}"
    return f"# HELP {full} {meaning}", f"# TYPE {full} {kind}", f"{full} {value}"
