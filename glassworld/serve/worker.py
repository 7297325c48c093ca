"""A worker: the server of live play around one world, as an actor of Ray.

The server runs in a thread with an event loop of its own, so that frames do not wait for Ray. Ray
calls the methods without an underscore, in other threads.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from glassworld.errors import InputError
from glassworld.play.app import create_app
from glassworld.play.connection import PlayerConnection
from glassworld.play.handover.suspended import pack_suspended, unpack_suspended
from glassworld.play.launch import http_server, listen_on, world_to_serve
from glassworld.play.protocol import MovedMessage
from glassworld.play.recording import replay_command
from glassworld.play.server_state import ServerState
from glassworld.serve.journal import read_snapshots
from glassworld.serve.options import FleetOptions, WorldOptions
from glassworld.serve.players import Players
from glassworld.serve.ray_cluster import DIRECTORY, actor_errors, actor_named, answer
from glassworld.serve.recovery import recover_session
from glassworld.serve.seats import WorkerReport
from glassworld.serve.tickets import Signer

REPORT_SECONDS = 0.5
"""Time between two reports to the directory."""

SPARE_SLOTS = 8
"""Connections beyond the seats: players who come back while their old connection still ends."""

CALL_SECONDS = 30.0
"""How long the directory or another worker may take to answer."""

PORTS = 200
"""How many ports a worker tries, from the first one on."""

Result = TypeVar("Result")


class Place(NamedTuple):
    """Where a session can be found: the worker, its address and a ticket."""

    worker: str
    node: str
    port: int
    ticket: str


class FleetWorker:
    """One world on one device, its players and their sessions."""

    def __init__(self, name: str, world: WorldOptions, options: FleetOptions, node: str) -> None:
        self._name, self._world, self._options = name, world, options
        self._signer = Signer(options.secret)
        self._report = WorkerReport(name, world.name, node, seats=world.seats, process=os.getpid())
        self._stopping = threading.Event()
        self._loop: asyncio.AbstractEventLoop
        self._players: Players
        self._state: ServerState
        started: Future[None] = Future()
        threading.Thread(target=lambda: asyncio.run(self._main(started)), daemon=True).start()
        started.result()

    # Called by Ray

    def report(self) -> WorkerReport:
        """Return what this worker says about itself; also a sign that it lives."""
        return self._report

    def adopt(self, session: str, parcel: bytes) -> Place:
        """Take over a session that another worker has packed."""
        return self._run(self._adopt(session, parcel))

    def recover(self, session: str, next_frame: int) -> None:
        """Bring back a session of a worker that has died.

        Raises `InputError` if nothing was saved of it.
        """
        self._run(self._recover(session, next_frame))

    def drain(self) -> None:
        """Take no more players, and move the sessions to other workers as they have seats."""
        self._report.state = "draining"

    def stop(self) -> None:
        """End the server; the process ends when Ray kills the actor."""
        self._stopping.set()

    # The thread of the server

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _main(self, started: Future[None]) -> None:
        """Run the server until `stop`."""
        try:
            self._loop = asyncio.get_running_loop()
            folder = Path(self._options.state_folder)
            self._players = Players(self._name, self._world.name, self._signer, folder)
            slots = self._world.seats + SPARE_SLOTS
            replay = replay_command(self._world.load, show_paths=False)
            self._state = ServerState(slots, self._players, self._options.flight_recorder, replay)
            self._players.state = self._state
            started.set_result(None)
        except BaseException as error:
            started.set_exception(error)
            raise
        works = (self._keep_reporting(), self._keep_moving())
        jobs = [asyncio.create_task(work) for work in works]
        try:
            await self._serve(jobs)
        except InputError as error:  # no port
            self._on_loaded(error)
            await asyncio.gather(*jobs)  # the directory reads the reason, and ends this process
        self._players.close()

    async def _serve(self, jobs: list[asyncio.Task[None]]) -> None:
        """Serve players until `stop`; then cancel `jobs`. Raises `InputError` without a port."""
        host = self._options.worker_host
        listening = _listen(host, self._options.worker_port)
        self._report.host = self._report.node if host in ("0.0.0.0", "::") else host
        self._report.port = listening.getsockname()[1]
        load = self._world.load
        app = create_app(self._state, lambda: world_to_serve(load), on_loaded=self._on_loaded)
        server = http_server(app, "critical")
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        while not self._stopping.is_set() and not serving.done():
            await asyncio.sleep(REPORT_SECONDS / 5)
        for job in jobs:
            job.cancel()
        server.should_exit = True
        await serving

    def _on_loaded(self, failure: Exception | None) -> None:
        if failure is not None:
            self._report.state = "failed"
            self._report.reason = str(failure).partition("\n")[0] or type(failure).__name__
        elif self._report.state == "loading":
            self._report.state, self._report.note = "ready", self._state.world.note

    async def _keep_reporting(self) -> None:
        """Report to the directory, also while it restarts."""
        while True:
            self._refresh_report()
            try:
                await answer(actor_named(DIRECTORY).heartbeat.remote(self._report), CALL_SECONDS)
            except actor_errors():
                pass  # it rebuilds its table from the next report
            await asyncio.sleep(REPORT_SECONDS)

    def _refresh_report(self) -> None:
        report = self._report
        report.sessions, report.connected = self._players.sessions, self._players.connected
        report.metrics = self._state.metrics
        report.block_p50 = self._state.metrics.recent_block_seconds
        report.memory = _resident_bytes()
        if self._state.flight_recorder is not None:
            report.late_frames = self._state.flight_recorder.recordings

    # Moving sessions

    async def _adopt(self, session: str, parcel: bytes) -> Place:
        world = self._state.world
        suspended = await self._state.device_thread.run(lambda: unpack_suspended(world, parcel))
        self._players.keep(session, suspended)
        self._refresh_report()
        ticket = self._signer.ticket(session, self._name)
        return Place(self._name, self._report.node, self._report.port, ticket)

    async def _recover(self, session: str, next_frame: int) -> None:
        if session in self._players.sessions:
            return
        folder = Path(self._options.state_folder)
        saved = await asyncio.to_thread(read_snapshots, folder, session)
        self._players.keep(session, await recover_session(self._state, saved, next_frame))
        self._refresh_report()

    async def _keep_moving(self) -> None:
        """Move one session after the other while draining, as other workers have seats."""
        while True:
            await asyncio.sleep(REPORT_SECONDS / 5)
            if self._report.state != "draining":
                continue
            for session, connection in self._players.connections().items():
                if connection.is_movable:
                    await self._move(session, connection)
            for session in self._players.suspended():
                await self._move_suspended(session)

    async def _move(self, session: str, connection: PlayerConnection) -> None:
        """Move a session whose player is connected; it stays if no other worker has a seat."""

        async def ship(parcel: bytes) -> MovedMessage:
            place = await _ship(target, session, parcel)
            # Before its connection ends, which would remove the files of a session kept here.
            self._players.forget(session, keep_files=True)
            address = self._options.address(connection.socket.host, place.node, place.port)
            return MovedMessage(address, place.ticket)

        # An InputError is a ValueError: the session has ended meanwhile.
        with suppress(_NoSeatError, *actor_errors()):
            target = await self._reserve(session)
            await connection.move(ship)

    async def _move_suspended(self, session: str) -> None:
        """Move a session whose player is not connected."""
        with suppress(_NoSeatError, *actor_errors()):
            target = await self._reserve(session)
            suspended = self._players.suspended().get(session)
            if suspended is None:
                return
            snapshot = await self._state.device_thread.run(suspended.live.take_snapshot)
            parcel = await asyncio.to_thread(pack_suspended, suspended, snapshot)
            await _ship(target, session, parcel)
            if self._players.suspended().get(session) is suspended:
                self._players.forget(session, keep_files=True)

    async def _reserve(self, session: str) -> str:
        """Have the directory reserve a seat on another worker; return its name."""
        directory = actor_named(DIRECTORY)
        call = directory.reserve.remote(self._world.name, session, self._name)
        target: str | None = await answer(call, CALL_SECONDS)
        if target is None:
            raise _NoSeatError
        return target


async def _ship(target: str, session: str, parcel: bytes) -> Place:
    """Have another worker take over a packed session."""
    call = actor_named(target).adopt.remote(session, parcel)
    place: Place = await answer(call, CALL_SECONDS)
    return place


class _NoSeatError(Exception):
    """No other worker has a free seat now."""


def _listen(host: str, first_port: int) -> socket.socket:
    """Return a socket on the first free port from `first_port` on, or on any for 0."""
    ports = range(first_port, first_port + PORTS) if first_port else range(1)
    for port in ports:
        try:
            return listen_on(host, port, "--worker-host or --worker-port")
        except InputError:
            if port == ports[-1]:
                raise
    raise AssertionError


def _resident_bytes() -> int:
    """Return the memory of this process, or 0 where the system does not say."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
