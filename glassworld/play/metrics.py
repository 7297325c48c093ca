"""Count what the server does and report it as Prometheus text."""

from __future__ import annotations

from dataclasses import dataclass, field

BUCKETS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0)
"""Upper bounds, in seconds, of the histogram of block times."""


@dataclass
class Metrics:
    """Counters of one server since it started."""

    players: int = 0
    refused: int = 0  # because all slots were taken
    faults: int = 0  # connections closed because of invalid messages
    frames: int = 0
    stalls: int = 0
    block_seconds: float = 0.0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))

    def count_block(self, seconds: float) -> None:
        """Count a block that took `seconds` to generate."""
        self.block_seconds += seconds
        bucket = next((i for i, bound in enumerate(BUCKETS) if seconds <= bound), len(BUCKETS))
        self.buckets[bucket] += 1

    def text(self, ready: bool, slots_taken: int, waiting: int, tasks: int) -> str:
        """Return all metrics in the Prometheus text format."""
        lines = [
            *_metric("ready", "gauge", "1 once the world is loaded", int(ready)),
            *_metric("sessions", "gauge", "connected players", slots_taken),
            *_metric("queue", "gauge", "jobs waiting for or running on the device", waiting),
            *_metric("tasks", "gauge", "asyncio tasks, including this request's", tasks),
            *_metric("players_total", "counter", "players admitted", self.players),
            *_metric(
                "refused_total", "counter", "players refused for lack of a slot", self.refused
            ),
            *_metric("faults_total", "counter", "connections closed for bad input", self.faults),
            *_metric("frames_total", "counter", "frames sent", self.frames),
            *_metric("stalls_total", "counter", "times a player ran out of frames", self.stalls),
            "# HELP glassworld_block_seconds time to generate a block",
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
    full_name = f"glassworld_{name}"
    return f"# HELP {full_name} {meaning}", f"# TYPE {full_name} {kind}", f"{full_name} {value}"
