"""The directory: an actor that knows the workers, hands out seats, and starts and drains workers.

It keeps no state that the workers do not report, so Ray may restart it at any time.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
import warnings
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from glassworld.errors import InputError
from glassworld.serve.autoscaling import IdleClock, Load, wanted_workers
from glassworld.serve.journal import is_saved, remove_abandoned
from glassworld.serve.options import FleetOptions, WorldOptions
from glassworld.serve.ray_cluster import (
    NAMESPACE,
    actor_errors,
    actor_named,
    answer,
    import_ray,
)
from glassworld.serve.seats import SILENCE_SECONDS, SeatTable, WaitingLine, WorkerReport
from glassworld.serve.tickets import TOKEN_SECONDS, Signer, TicketError, new_session
from glassworld.serve.worker import FleetWorker

logger = logging.getLogger("glassworld.serve")

ROUND_SECONDS = 0.5
"""Time between two looks at the load."""

START_SECONDS = 300.0
"""How long a new worker may take to report for the first time."""

DRAIN_SECONDS = 600.0
"""How long a draining worker may take. Sessions left then come back from their snapshots."""

PROBE_SECONDS = 1.0
"""How long a worker may take to show that it lives, when a player has lost it."""

RECOVER_SECONDS = 60.0

RETRY_SECONDS = 2
"""After how many seconds a player who waits should ask again."""

SETTLE_SECONDS = 5.0
"""Time before a worker is replaced: its sessions go on first, on the other workers."""

BACKOFF_SECONDS = 10.0
"""Time before a worker is started again after one of its world could not load it."""

SWEEP_SECONDS = 600.0
"""Time between two looks for the files of sessions that nobody can ask for any more."""


class SessionRequest(NamedTuple):
    """What a player asks for."""

    world: str | None = None
    token: str | None = None  # of a session to go on with
    next: int = 0  # the first frame that the player lacks
    queue: str | None = None  # of a player who waits already


class SessionReply(NamedTuple):
    """The answer: a seat, or the HTTP status that says why there is none."""

    status: int
    session: str = ""
    ticket: str = ""
    node: str = ""
    port: int = 0
    reason: str = ""
    queue: str = ""
    place: int = 0


@dataclass
class _WorldState:
    options: WorldOptions
    line: WaitingLine = field(default_factory=WaitingLine)
    idle: IdleClock = field(default_factory=IdleClock)
    starting: dict[str, float] = field(default_factory=dict)  # workers, and since when
    failure: str = ""
    failed_at: float = float("-inf")
    lost_at: float = float("-inf")  # a worker, or the first moment of its drain
    counted: tuple[int, int] = (0, 0)  # frames and stalls at the last look
    missed_share: float = 0.0


class Directory:
    """Ray calls the methods without an underscore; they share one event loop."""

    def __init__(self, options: FleetOptions) -> None:
        self._options, self._signer = options, Signer(options.secret)
        self._table = SeatTable()
        self._worlds = {world.name: _WorldState(world) for world in options.worlds}
        self._draining: dict[str, float] = {}  # workers, and since when
        self._recovering: dict[str, asyncio.Task[SessionReply]] = {}
        self._since = self._swept_at = time.monotonic()
        self._rounds: asyncio.Task[None] | None = None

    # Called by workers

    async def heartbeat(self, report: WorkerReport) -> None:
        """Note what a worker says about itself."""
        self._keep_going()
        self._table.report(report, time.monotonic())
        world = self._worlds.get(report.world)
        if world is not None:
            if report.state != "loading":
                has_started = world.starting.pop(report.name, None) is not None
                if has_started and report.state == "ready":
                    world.failure = ""  # of an earlier start
            if report.state == "draining":
                self._draining.setdefault(report.name, time.monotonic())

    async def reserve(self, world: str, session: str, without: str) -> str | None:
        """Reserve a seat for a session that moves; return the worker, or None."""
        return self._table.reserve(world, session, time.monotonic(), without)

    # Called by the ingress

    async def request_session(self, request: SessionRequest) -> SessionReply:
        """Return a seat for a new session or for one to go on with."""
        self._keep_going()
        if request.token is not None:
            return await self._return_to_session(request, request.token)
        options = self._options.world(request.world)
        if options is None:
            names = ", ".join(world.name for world in self._options.worlds)
            return SessionReply(404, reason=f"no such world; there is {names}")
        world, now = self._worlds[options.name], time.monotonic()
        if not self._table.reports(options.name) and world.failure:
            return SessionReply(503, reason=world.failure)
        token, place = world.line.place(request.queue, now)
        session = new_session()
        worker = None
        if place <= self._table.free(options.name):
            worker = self._table.reserve(options.name, session, now)
        if worker is None:
            return SessionReply(429, reason="all seats are taken", queue=token, place=place)
        world.line.leave(token)
        return self._seat(session, worker)

    async def _return_to_session(self, request: SessionRequest, token: str) -> SessionReply:
        """Return a seat where the session is, or where it can be brought back."""
        try:
            session, world = self._signer.session_of_token(token)
        except TicketError as error:
            return SessionReply(403, reason=str(error))
        if session in self._recovering:  # a lease names the worker before it has the session
            return await self._recover(session, world, request.next)
        worker = self._table.locate(session)
        if worker is not None and not await self._lives(worker):
            self._lose(worker)
            worker = None
        if worker is None and time.monotonic() - self._since < SILENCE_SECONDS:
            return SessionReply(503, reason="the fleet is starting")
        if worker is None:
            return await self._recover(session, world, request.next)
        return self._seat(session, worker)

    async def _lives(self, worker: str) -> bool:
        """Return whether a worker still listens: Ray notices later that a process has died."""
        report = self._table.get(worker)
        if report is None:
            return False
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                _, writer = await asyncio.open_connection(report.host, report.port)
        except OSError:  # TimeoutError too
            return False
        writer.close()
        return True

    async def _recover(self, session: str, world: str, next_frame: int) -> SessionReply:
        """Bring a session back on a worker with a free seat; once, however often it is asked.

        A session that was saved waits for a seat: a new worker may take the dead one's place.
        """
        if session not in self._recovering:
            work = self._recover_once(session, world, next_frame)
            task = self._recovering[session] = asyncio.create_task(work)
            task.add_done_callback(lambda _: self._recovering.pop(session, None))
        return await asyncio.shield(self._recovering[session])

    async def _recover_once(self, session: str, world: str, next_frame: int) -> SessionReply:
        folder = Path(self._options.state_folder)
        if not await asyncio.to_thread(is_saved, folder, session):
            return SessionReply(410, reason="the session has ended; start another")
        worker = self._table.reserve(world, session, time.monotonic())
        if worker is None:
            return SessionReply(503, reason="all seats are taken; try again")
        try:
            call = actor_named(worker).recover.remote(session, next_frame)
            await answer(call, RECOVER_SECONDS)
        except actor_errors() as error:
            self._table.release(worker, session)
            logger.warning("a session could not be brought back: %s", error)
            if isinstance(error, InputError):
                return SessionReply(410, reason="the session cannot be read; start another")
            return SessionReply(503, reason="a worker has failed; try again")
        return self._seat(session, worker)

    def _seat(self, session: str, worker: str) -> SessionReply:
        report = self._table.get(worker)
        assert report is not None
        ticket = self._signer.ticket(session, worker)
        return SessionReply(200, session, ticket, report.node, report.port)

    # Called by the control port

    async def status(self) -> list[dict[str, Any]]:
        """Return the worlds, and the reports of their workers."""
        self._keep_going()
        return [
            {
                "world": name,
                "failure": world.failure,
                "waiting": world.line.count(time.monotonic()),
                "missed_share": world.missed_share,
                "starting": sorted(world.starting),
                "workers": [
                    (report, self._table.taken(report.name))
                    for report in sorted(self._table.reports(name), key=lambda report: report.name)
                ],
            }
            for name, world in self._worlds.items()
        ]

    async def drain(self, worker: str) -> bool:
        """Move a worker's sessions to others, then end it; return False if there is none."""
        if self._table.get(worker) is None:
            return False
        await self._begin_drain(worker)
        return True

    # The rounds

    def _keep_going(self) -> None:
        """Look at the load from now on, if that has not begun."""
        if self._rounds is None or self._rounds.done():
            self._rounds = asyncio.create_task(self._go_round())

    async def _go_round(self) -> None:
        while True:
            for name in self._table.overdue(time.monotonic()):
                self._lose(name)
            for name in list(self._draining):
                await self._end_if_drained(name)
            if time.monotonic() - self._since > SILENCE_SECONDS or not self._is_restarted():
                for world in self._worlds.values():
                    await self._scale(world)
            if time.monotonic() - self._swept_at > SWEEP_SECONDS:
                await self._sweep()
            await asyncio.sleep(ROUND_SECONDS)

    async def _sweep(self) -> None:
        """Remove the files of sessions whose tokens have all expired; the living keep theirs."""
        self._swept_at = time.monotonic()
        folder, living = Path(self._options.state_folder), self._table.sessions()
        try:
            await asyncio.to_thread(remove_abandoned, folder, living, TOKEN_SECONDS)
        except OSError as error:
            logger.warning("old snapshots could not be removed: %s", error)

    def _is_restarted(self) -> bool:
        """Return whether workers of an earlier directory may still report."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Ray asks itself a deprecated question
            runtime = import_ray().get_runtime_context()
            return bool(runtime.was_current_actor_reconstructed)

    async def _scale(self, world: _WorldState) -> None:
        """Start or drain a worker if the world needs more or fewer."""
        now, name = time.monotonic(), world.options.name
        for worker, since in list(world.starting.items()):
            if now - since > START_SECONDS or not await self._is_starting(worker):
                del world.starting[worker]
                with suppress(*actor_errors()):  # else it would start once Ray finds a place
                    import_ray().kill(actor_named(worker))
        reports = self._table.reports(name)
        for report in reports:
            if report.state == "failed":
                await self._drop_failed(world, report)
        active = [report for report in reports if report.state in ("ready", "loading")]
        names = {report.name for report in active} | world.starting.keys()
        world.missed_share = self._missed_share(world, active)
        taken = sum(self._table.taken(report.name) for report in active)
        draining = sum(self._table.taken(r.name) for r in reports if r.state == "draining")
        load = Load(taken + draining, world.line.count(now), world.missed_share, len(names))
        wanted = wanted_workers(world.options, load)
        settled = not names or now - world.lost_at > SETTLE_SECONDS
        if wanted > len(names) and settled and now - world.failed_at > BACKOFF_SECONDS:
            self._start_worker(world)
        ready = [report for report in active if report.state == "ready"]
        if world.idle.is_over(wanted < len(names), now) and ready:
            emptiest = min(ready, key=lambda report: self._table.taken(report.name))
            await self._begin_drain(emptiest.name)

    def _missed_share(self, world: _WorldState, reports: list[WorkerReport]) -> float:
        """Return the stalls per frame since the last look, smoothed."""
        frames = sum(report.metrics.frames for report in reports)
        stalls = sum(report.metrics.stalls for report in reports)
        new_frames, new_stalls = frames - world.counted[0], stalls - world.counted[1]
        world.counted = frames, stalls
        share = new_stalls / new_frames if new_frames > 0 and new_stalls >= 0 else 0.0
        return 0.9 * world.missed_share + 0.1 * share

    async def _is_starting(self, worker: str) -> bool:
        """Return whether a worker that has not reported may still come."""
        if self._table.get(worker) is not None:
            return True
        try:
            await answer(actor_named(worker).report.remote(), ROUND_SECONDS / 5)
        except TimeoutError:
            return True
        except actor_errors():
            return False
        return True

    async def _drop_failed(self, world: _WorldState, report: WorkerReport) -> None:
        world.failure, world.failed_at = report.reason, time.monotonic()
        await self._end(report.name)

    def _start_worker(self, world: _WorldState) -> None:
        start_worker(self._options, world.options, name := worker_name(world.options))
        world.starting[name] = time.monotonic()

    def _lose(self, worker: str) -> None:
        """Forget a worker that has ended on its own."""
        report = self._table.get(worker)
        if report is not None and report.world in self._worlds:
            self._worlds[report.world].lost_at = time.monotonic()
        self._table.forget(worker)

    async def _begin_drain(self, worker: str) -> None:
        self._draining[worker] = time.monotonic()
        report = self._table.get(worker)
        if report is not None:
            report.state = "draining"
            self._worlds[report.world].lost_at = time.monotonic()
        with suppress(*actor_errors()):
            await answer(actor_named(worker).drain.remote(), PROBE_SECONDS)

    async def _end_if_drained(self, worker: str) -> None:
        report = self._table.get(worker)
        overdue = time.monotonic() - self._draining[worker] > DRAIN_SECONDS
        if report is None or overdue or not self._table.taken(worker):
            del self._draining[worker]
            await self._end(worker)

    async def _end(self, worker: str) -> None:
        """End a worker's server and its process."""
        self._table.forget(worker)
        with suppress(*actor_errors()):
            actor = actor_named(worker)
            await answer(actor.stop.remote(), PROBE_SECONDS)
            import_ray().kill(actor)


def worker_name(world: WorldOptions) -> str:
    """Return an unused name for a worker."""
    return f"{world.name}-{secrets.token_hex(3)}"


def start_worker(options: FleetOptions, world: WorldOptions, name: str) -> None:
    """Start a worker; it reports to the directory once it runs.

    It is detached: it goes on without the directory that started it.
    """
    ray = import_ray()
    resources = {"num_gpus": 1} if world.load.needs_gpu else {"num_cpus": 1}
    ray.remote(NamedWorker).options(
        name=name,
        namespace=NAMESPACE,
        lifetime="detached",
        max_concurrency=32,
        **resources,
    ).remote(name, world, options)


class NamedWorker(FleetWorker):
    """A worker that finds out on which machine it runs."""

    def __init__(self, name: str, world: WorldOptions, options: FleetOptions) -> None:
        super().__init__(name, world, options, import_ray().util.get_node_ip_address())
