"""Who sits where: workers and their seats, leases, and the queue. Without any I/O.

Nothing here is the only copy: workers report their sessions every half second, so a directory that
starts again knows all of it after one round.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Literal

from glassworld.play.protocol import LateFrameInfo
from glassworld.play.server_state import Metrics

LEASE_SECONDS = 30.0
"""How long a seat is kept for a player who has a ticket and has not come yet."""

SILENCE_SECONDS = 3.0
"""A worker that has not reported for so long counts as gone."""

QUEUE_SECONDS = 10.0
"""A waiting player who has not asked again for so long loses the place."""

MAX_QUEUE = 1000

WorkerState = Literal["loading", "ready", "draining", "failed"]


@dataclass
class WorkerReport:
    """What a worker says about itself."""

    name: str
    world: str
    node: str  # the address of its machine
    host: str = ""  # that it listens on
    port: int = 0
    seats: int = 0
    state: WorkerState = "loading"
    reason: str = ""  # why it failed
    note: str = ""  # the world's
    sessions: frozenset[str] = frozenset()
    connected: int = 0
    block_p50: float = 0.0  # seconds, of the recent blocks
    metrics: Metrics = field(default_factory=Metrics)
    memory: int = 0  # bytes of the process
    process: int = 0
    late_frames: list[LateFrameInfo] = field(default_factory=list)

    @property
    def address(self) -> str:
        """The URL of the worker's own server."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/"


@dataclass
class _Worker:
    report: WorkerReport
    seen: float
    leases: dict[str, float] = field(default_factory=dict)  # session, and until when

    def sessions(self) -> set[str]:
        return {*self.report.sessions, *self.leases}


class SeatTable:
    """All workers of a fleet. Times are seconds of any monotonic clock."""

    def __init__(self) -> None:
        self._workers: dict[str, _Worker] = {}

    def report(self, report: WorkerReport, now: float) -> None:
        """Note what a worker says about itself."""
        worker = self._workers.setdefault(report.name, _Worker(report, now))
        worker.report, worker.seen = report, now
        for session in report.sessions & worker.leases.keys():
            del worker.leases[session]

    def overdue(self, now: float) -> list[str]:
        """Return the workers that have not reported in time; forget the leases that have ended."""
        for worker in self._workers.values():
            worker.leases = {
                session: until for session, until in worker.leases.items() if until > now
            }
        return [name for name, w in self._workers.items() if now - w.seen > SILENCE_SECONDS]

    def forget(self, worker: str) -> None:
        """Forget a worker that has ended."""
        self._workers.pop(worker, None)

    def get(self, worker: str) -> WorkerReport | None:
        """Return a worker's report, or None."""
        found = self._workers.get(worker)
        return None if found is None else found.report

    def reports(self, world: str) -> list[WorkerReport]:
        """Return the reports of the workers of a world."""
        return [w.report for w in self._workers.values() if w.report.world == world]

    def locate(self, session: str) -> str | None:
        """Return the worker that has a session, or None."""
        for name, worker in self._workers.items():
            if session in worker.report.sessions:
                return name
        for name, worker in self._workers.items():
            if session in worker.leases:
                return name
        return None

    def sessions(self) -> set[str]:
        """Return the sessions of all workers, and those whose seats are reserved."""
        return {session for worker in self._workers.values() for session in worker.sessions()}

    def taken(self, worker: str) -> int:
        """Return how many seats of a worker are taken or reserved."""
        return len(self._workers[worker].sessions())

    def free(self, world: str) -> int:
        """Return how many seats of a world are free on workers that take players."""
        return sum(
            max(0, worker.report.seats - len(worker.sessions()))
            for worker in self._workers.values()
            if worker.report.world == world and worker.report.state == "ready"
        )

    def reserve(
        self, world: str, session: str, now: float, without: str | None = None
    ) -> str | None:
        """Lease a seat on the emptiest worker; return its name, or None if all seats are taken."""
        candidates = [
            (len(worker.sessions()), name)
            for name, worker in self._workers.items()
            if worker.report.world == world
            and worker.report.state == "ready"
            and name != without
            and len(worker.sessions()) < worker.report.seats
        ]
        if not candidates:
            return None
        name = min(candidates)[1]
        self._workers[name].leases[session] = now + LEASE_SECONDS
        return name

    def release(self, worker: str, session: str) -> None:
        """Give up a lease."""
        if worker in self._workers:
            self._workers[worker].leases.pop(session, None)


class WaitingLine:
    """The players who wait for a seat, in the order in which they came."""

    def __init__(self) -> None:
        self._waiting: dict[str, float] = {}  # token, and when it was seen

    def count(self, now: float) -> int:
        """Return how many players wait; those who no longer ask have left."""
        self._waiting = {
            other: seen for other, seen in self._waiting.items() if now - seen < QUEUE_SECONDS
        }
        return len(self._waiting)

    def place(self, token: str | None, now: float) -> tuple[str, int]:
        """Return a player's token and place, from 1; a player without a known token is the last."""
        waiting = self.count(now)
        if token not in self._waiting:
            token = secrets.token_hex(8)
            if waiting >= MAX_QUEUE:
                return token, MAX_QUEUE + 1
        assert token is not None
        self._waiting[token] = now
        return token, list(self._waiting).index(token) + 1

    def leave(self, token: str) -> None:
        """Take a player off the line."""
        self._waiting.pop(token, None)
