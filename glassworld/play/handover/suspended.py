"""A player's session without its connection, and who keeps such sessions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import msgspec

from glassworld.engine.actions.track import Action
from glassworld.engine.world import World
from glassworld.play.handover.session_bytes import pack_session, unpack_session
from glassworld.play.live_session import LiveSession, PlayerInput, Snapshot
from glassworld.play.pacing import QueuedFrame
from glassworld.play.protocol import Encoding


@dataclass
class SuspendedSession:
    """A session between two connections, at the start of a block."""

    live: LiveSession
    input: PlayerInput
    image: str = "0"  # the id that it was started from
    encoding: Encoding = "png"
    playing: bool = True
    frames: list[QueuedFrame] = field(default_factory=list)
    """The frames that the client may not have, the oldest first."""


class _Parcel(msgspec.Struct):
    """A suspended session on its way to another server."""

    session: bytes
    input_id: int
    keyboard: tuple[float, ...]
    mouse: tuple[float, float] | None
    image: str
    encoding: Encoding
    playing: bool
    frames: list[tuple[int, int, bytes]]


def pack_suspended(suspended: SuspendedSession, snapshot: Snapshot) -> bytes:
    """Return a suspended session, of which `snapshot` is the newest, as bytes."""
    action = suspended.input.action
    parcel = _Parcel(
        pack_session(suspended.live, snapshot),
        suspended.input.id,
        action.keyboard,
        action.mouse,
        suspended.image,
        suspended.encoding,
        suspended.playing,
        [(frame.block, frame.frame, frame.message) for frame in suspended.frames],
    )
    return msgspec.msgpack.encode(parcel)


def unpack_suspended(world: World, data: bytes) -> SuspendedSession:
    """Return the suspended session that another server packed; the device thread calls this."""
    parcel = msgspec.msgpack.decode(data, type=_Parcel)
    return SuspendedSession(
        unpack_session(world, parcel.session),
        PlayerInput(parcel.input_id, Action(parcel.keyboard, parcel.mouse)),
        parcel.image,
        parcel.encoding,
        parcel.playing,
        [QueuedFrame(*frame) for frame in parcel.frames],
    )


class Admission(NamedTuple):
    """A player whose ticket is good."""

    session: str  # its id
    token: str  # asks for the session again after a lost connection
    suspended: SuspendedSession | None  # the session to go on with


class SessionElsewhereError(Exception):
    """A player's session is not on this server now; its text is safe to send as the close reason.

    The client asks again where its session is.
    """


class SuspendableConnection(Protocol):
    """The connection of a player, for whoever keeps the sessions."""

    def kick(self) -> None:
        """End the connection and suspend its session, because its player is back on another."""


class SessionKeeper(Protocol):
    """Knows the players of a server that is one of several, and keeps their sessions."""

    async def admit(self, ticket: str) -> Admission:
        """Return the player of a ticket.

        Raises `ProtocolError` if the ticket is not good, `SessionElsewhereError` if its session
        has left this server since.
        """

    def joined(self, session: str, connection: SuspendableConnection) -> None:
        """Note that a player is connected."""

    def started(self, session: str, live: LiveSession) -> None:
        """Note that a player's session is `live` from now on."""

    def left(self, session: str, suspended: SuspendedSession | None) -> None:
        """Keep the session of a connection that has ended, if it has one."""
