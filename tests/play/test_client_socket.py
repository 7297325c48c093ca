"""Limits on messages: whatever a client sends, the server answers or closes that session."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.websockets import WebSocket
from websockets.exceptions import ConnectionClosed

from glassworld.play.client_socket import ClientSocket
from glassworld.play.limits.connections import UPLOADED
from glassworld.play.protocol import MAX_SESSION_BYTES, ProtocolError
from tests.support.live import LiveServer, close_reason


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("", "malformed"),
        ("{", "malformed"),
        ('{"type": "fly"}', "malformed"),
        ('{"type": "start", "version": 9}', "malformed"),
        ("x" * 20_000, "too long"),
        (b"\0" * (8 * 2**20 + 1), "too large"),
    ],
)
def test_invalid_message_closes_that_session_with_a_reason(
    live: LiveServer, message: str | bytes, reason: str
) -> None:
    with live.client() as other:
        other.start()
        with live.client() as client:
            client.socket.send(message)
            code, text = close_reason(client)
            assert code == 1008
            assert reason in text
        assert len(list(other.frames(12))) == 12


def test_message_over_the_websocket_limit_closes_the_connection(live: LiveServer) -> None:
    with live.client() as client:
        with suppress(ConnectionClosed):
            client.socket.send(b"\0" * (9 * 2**20))
        # The server stops reading, so a reset may overtake its reason.
        assert close_reason(client)[0] in (1009, 0)
    assert live.get("/healthz").status == 200


@pytest.mark.parametrize("part", [2**20, 4 * 2**20])
def test_largest_session_file_may_arrive_at_once(part: int) -> None:
    data, parts = bytes(part), MAX_SESSION_BYTES // part

    async def receive() -> dict[str, object]:
        return {"type": "websocket.receive", "bytes": data}

    scope = {"state": {UPLOADED: lambda: 0}}
    socket = ClientSocket(cast(WebSocket, SimpleNamespace(receive=receive, scope=scope)))
    socket.expect_session(MAX_SESSION_BYTES)

    async def receive_all() -> None:
        for _ in range(parts):
            assert await socket.receive() == data

    async def receive_images() -> None:
        for _ in range(12):
            await socket.receive()

    asyncio.run(receive_all())
    with pytest.raises(ProtocolError, match="too many messages"):
        asyncio.run(receive_images())


@pytest.mark.slow
def test_too_many_messages_close_the_session(live: LiveServer) -> None:
    with live.client() as client:
        with suppress(ConnectionClosed):
            for number in range(2000):
                client.hold(str(number))
        assert "too many" in close_reason(client)[1]


@pytest.mark.slow
def test_text_that_is_not_utf8_closes_the_connection(live: LiveServer) -> None:
    with live.client() as client:
        client.socket.send(b"\xff\xfe", text=True)
        assert close_reason(client)[0] == 1007
    assert live.get("/healthz").status == 200


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.text(max_size=30)
        | st.binary(max_size=60)
        | st.builds(
            lambda kind, fields: json.dumps({"type": kind, **fields}),
            st.sampled_from(["start", "act", "seen", "step", "rewind", "record", "capture"]),
            st.dictionaries(
                st.sampled_from(["version", "id", "keys", "frame", "blocks", "on", "picture"]), JSON
            ),
        ),
        max_size=6,
    )
)
def test_any_messages_get_an_answer_or_a_reason(
    live: LiveServer, messages: list[str | bytes]
) -> None:
    with live.client() as client:
        try:
            for message in messages:
                client.socket.send(message)
            client.send("ping", id=1)
            client.wait_for("pong")
        except ConnectionClosed:
            code, reason = close_reason(client)
            assert code == 1008
            assert reason
    assert live.get("/healthz").status == 200
