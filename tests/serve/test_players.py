"""A worker's players: who is let in, and whose session is elsewhere."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace

from websockets.sync.client import connect

from glassworld.play.handover.suspended import pack_suspended, unpack_suspended
from glassworld.serve.journal import is_saved
from glassworld.serve.players import Players
from glassworld.serve.tickets import Signer, new_session
from tests.support.live import RATE, LiveServer, PlayClient, close_reason, until

SIGNER = Signer(b"secret")


def test_a_session_that_has_left_is_asked_for_elsewhere_and_keeps_its_files(
    tmp_path: Path,
) -> None:
    players = Players("a", "tiny", SIGNER, tmp_path)
    live = LiveServer(frame_rate=RATE)
    live.state.keeper, players.state = players, live.state
    with live:
        session = new_session()
        saved = tmp_path / f"{session}-1.gws"
        saved.write_bytes(b"what another worker wrote")
        code, reason = _closed(live, session)
        assert (code, reason) == (1013, "your session is on another worker; ask for it again")
        assert is_saved(tmp_path, session)
        assert players.sessions == frozenset()  # no seat is taken

        saved.unlink()
        with PlayClient(f"{live.ws}?ticket={SIGNER.ticket(session, 'a')}") as client:
            assert not client.hello["resumed"]
            client.start()
            assert list(client.frames(3))
            assert until(lambda: is_saved(tmp_path, session))
        assert until(lambda: session in players.suspended())
        with PlayClient(f"{live.ws}?ticket={SIGNER.ticket(session, 'a')}") as client:
            assert client.hello["resumed"]
        assert until(lambda: session in players.suspended())
        live.loop.call_soon_threadsafe(partial(players.forget, session, keep_files=False))
        assert until(lambda: not list(tmp_path.iterdir()))
    players.close()


def test_rewind_that_is_refused_after_a_move_drops_no_frames(tmp_path: Path) -> None:
    players = Players("a", "tiny", SIGNER, tmp_path)
    live = LiveServer(frame_rate=RATE)
    live.state.keeper, players.state = players, live.state
    session = new_session()
    with live:
        with PlayClient(f"{live.ws}?ticket={SIGNER.ticket(session, 'a')}") as client:
            client.start()
            list(client.frames(10))
        assert until(lambda: session in players.suspended())
        suspended = players.suspended()[session]
        parcel = pack_suspended(suspended, suspended.live.take_snapshot())
        moved = unpack_suspended(live.state.world, parcel)
        live.loop.call_soon_threadsafe(partial(players.forget, session, keep_files=True))
        live.loop.call_soon_threadsafe(players.keep, session, moved)
        assert until(lambda: players.suspended().get(session) is moved)
        assert moved.frames
        with PlayClient(f"{live.ws}?ticket={SIGNER.ticket(session, 'a')}") as client:
            client.send("rewind", blocks=1)  # after it has joined
            assert "no earlier block" in client.wait_for("notice")["text"]
            after = client.next_frame or moved.frames[0].frame
            assert [frame.number for frame in client.frames(5)] == [*range(after, after + 5)]
        assert until(lambda: session in players.suspended())
        live.loop.call_soon_threadsafe(partial(players.forget, session, keep_files=False))
        assert until(lambda: not players.sessions)
    players.close()


def _closed(live: LiveServer, session: str) -> tuple[int, str]:
    ticket = SIGNER.ticket(session, "a")
    with connect(f"{live.ws}?ticket={ticket}") as socket:
        return close_reason(SimpleNamespace(socket=socket))
