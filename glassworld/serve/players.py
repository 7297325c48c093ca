"""The sessions of a worker: with a connection, between two, and on their way to another worker."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from glassworld.play.connection import PlayerConnection
from glassworld.play.handover.suspended import (
    Admission,
    SessionElsewhereError,
    SuspendableConnection,
    SuspendedSession,
)
from glassworld.play.live_session import LiveSession
from glassworld.play.protocol import ProtocolError
from glassworld.play.server_state import ServerState
from glassworld.serve.journal import Journal, is_saved
from glassworld.serve.tickets import Signer, TicketCheck, TicketError

logger = logging.getLogger("glassworld.serve")

GRACE_SECONDS = 30.0
"""How long a session waits for its player to come back."""

HANDOVER_SECONDS = 15.0
"""How long a player's old connection may take to give the session up."""


@dataclass
class _Player:
    journal: Journal
    connection: PlayerConnection | None = None
    suspended: SuspendedSession | None = None
    gone: asyncio.Event = field(default_factory=asyncio.Event)  # has no connection
    expiry: asyncio.TimerHandle | None = None


class Players:
    """The keeper of a worker's sessions; the server's event loop owns it."""

    def __init__(self, worker: str, world: str, signer: Signer, folder: Path) -> None:
        self._signer, self._world, self._folder = signer, world, folder
        self._check = TicketCheck(signer, worker)
        self._executor = ThreadPoolExecutor(1, "snapshots")
        self._players: dict[str, _Player] = {}
        self.state: ServerState  # set by the worker

    @property
    def sessions(self) -> frozenset[str]:
        """The ids of all sessions of this worker."""
        return frozenset(self._players)

    @property
    def connected(self) -> int:
        """How many players are connected."""
        return sum(player.connection is not None for player in self._players.values())

    def connections(self) -> dict[str, PlayerConnection]:
        """Return the connected players by session."""
        return {
            session: player.connection
            for session, player in self._players.items()
            if player.connection is not None
        }

    def suspended(self) -> dict[str, SuspendedSession]:
        """Return the sessions that wait for their players."""
        return {
            session: player.suspended
            for session, player in self._players.items()
            if player.suspended is not None
        }

    def keep(self, session: str, suspended: SuspendedSession) -> None:
        """Keep a session that came from elsewhere, until its player comes."""
        self._suspend(session, self._player(session), suspended)

    async def admit(self, ticket: str) -> Admission:
        """Return the player of a ticket.

        An earlier connection of the same session ends first.

        Raises `ProtocolError` if the ticket is not good. Raises `SessionElsewhereError` if the
        session was saved but is not here: it moved after the ticket was issued, or its worker
        died. Its files stay as they are.
        """
        try:
            session = self._check.accept(ticket)
        except TicketError as error:
            raise ProtocolError(str(error)) from None
        player = self._players.get(session)
        if player is not None and player.connection is not None:
            player.connection.kick()
            with suppress(TimeoutError):
                async with asyncio.timeout(HANDOVER_SECONDS):
                    await player.gone.wait()
        suspended = self._take_suspended(session)
        if suspended is None and is_saved(self._folder, session):
            raise SessionElsewhereError("your session is on another worker; ask for it again")
        return Admission(session, self._signer.token(session, self._world), suspended)

    def joined(self, session: str, connection: SuspendableConnection) -> None:
        """Note that a player is connected."""
        assert isinstance(connection, PlayerConnection)
        player = self._player(session)
        self._stop_expiry(player)
        player.connection = connection
        player.gone.clear()

    def started(self, session: str, live: LiveSession) -> None:
        """Journal a player's session from now on."""
        self._player(session).journal.observe(live)

    def left(self, session: str, suspended: SuspendedSession | None) -> None:
        """Keep the session of a connection that has ended, if it has one."""
        player = self._players.get(session)
        if player is None:  # it has moved
            if suspended is not None:
                self.state.scheduler.close_session(suspended.live)
            return
        player.connection = None
        player.gone.set()
        if suspended is None:
            self.forget(session, keep_files=False)
        else:
            self._suspend(session, player, suspended)

    def forget(self, session: str, keep_files: bool) -> None:
        """Forget a session that has ended, or that goes on elsewhere."""
        player = self._players.pop(session, None)
        if player is None:
            return
        self._stop_expiry(player)
        player.journal.close(keep_files)
        if player.suspended is not None:
            self.state.scheduler.close_session(player.suspended.live)

    def close(self) -> None:
        """Write nothing more."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _player(self, session: str) -> _Player:
        if session not in self._players:
            journal = Journal(self._folder, session, self._executor)
            self._players[session] = _Player(journal)
        return self._players[session]

    def _take_suspended(self, session: str) -> SuspendedSession | None:
        player = self._players.get(session)
        if player is None:
            return None
        self._stop_expiry(player)
        suspended, player.suspended = player.suspended, None
        return suspended

    def _suspend(self, session: str, player: _Player, suspended: SuspendedSession) -> None:
        player.suspended = suspended
        self._stop_expiry(player)
        player.expiry = asyncio.get_running_loop().call_later(
            GRACE_SECONDS, lambda: self.forget(session, keep_files=False)
        )

    def _stop_expiry(self, player: _Player) -> None:
        if player.expiry is not None:
            player.expiry.cancel()
            player.expiry = None
