"""What must not harm the server: messages, addresses, other sites."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.support.live import RATE, LiveServer, close_reason


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
def test_what_must_not_be_sent_closes_that_session_with_a_reason(
    live: LiveServer, message: str | bytes, reason: str
) -> None:
    with live.client() as other:
        other.start()
        with live.client() as client:
            client.socket.send(message)
            code, said = close_reason(client)
            assert code == 1008
            assert reason in said
        assert len(list(other.frames(12))) == 12


def test_a_frame_over_the_servers_limit_is_cut_off(live: LiveServer) -> None:
    with live.client() as client:
        with suppress(ConnectionClosed):
            client.socket.send(b"\0" * (9 * 2**20))
        # The server stops reading, so a reset may overtake its reason.
        assert close_reason(client)[0] in (1009, 0)
    assert live.get("/healthz").status == 200


def test_too_many_messages(live: LiveServer) -> None:
    with live.client() as client:
        with suppress(ConnectionClosed):
            for number in range(2000):
                client.hold(str(number))
        assert "too many" in close_reason(client)[1]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
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
def test_no_message_harms_the_server(live: LiveServer, messages: list[str | bytes]) -> None:
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


def test_text_that_is_not_unicode(live: LiveServer) -> None:
    with live.client() as client:
        client.socket.send(b"\xff\xfe", text=True)
        assert close_reason(client)[0] == 1007
    assert live.get("/healthz").status == 200


def test_fields_that_mean_nothing_here_are_explained(live: LiveServer) -> None:
    with live.client() as client:
        for kind, fields in (
            ("rewind", {}),
            ("record", {"on": True}),
            ("capture", {}),
            ("start", {"version": 1, "picture": "../../etc/passwd"}),
            ("act", {"id": 1, "keys": ["<img src=x>"]}),
        ):
            client.send(kind, **fields)
            assert client.wait_for("notice")["text"]


@pytest.mark.parametrize(
    "path",
    [
        "/static/../server.py",
        "/static/..%2fserver.py",
        "/static/%2e%2e/server.py",
        "/files/../../etc/passwd",
        "/files/..%2f..%2fetc%2fpasswd",
        "/pictures/..%2f0",
        "/pictures/99",
        "/etc/passwd",
    ],
)
def test_no_path_reaches_the_file_system(live: LiveServer, path: str) -> None:
    assert live.get(path).status == 404


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(["/", "/static/", "/files/", "/pictures/"]), st.text(max_size=40))
def test_no_address_harms_the_server(live: LiveServer, folder: str, name: str) -> None:
    # The router's patterns end in `$`, which lets one last line break pass.
    pages = {page + end for page in ("", "healthz", "metrics") for end in ("", "\n")}
    known = {"/": pages, "/pictures/": {"0", "1"}}.get(folder, set())
    address = folder + quote(name, safe="")
    assert (live.get(address).status == 200) == (name in known)


def refused(url: str, **arguments: Any) -> bool:
    try:
        with connect(url, **arguments):
            return False
    except InvalidStatus as error:
        return error.response.status_code == 403


def test_other_sites_may_not_connect(live: LiveServer) -> None:
    assert refused(live.ws, origin="http://evil.example")
    assert refused(live.ws, origin="null")
    assert refused(live.ws, origin=f"http://127.0.0.1:{live.port + 1}")
    assert not refused(live.ws, origin=f"http://127.0.0.1:{live.port}")


def test_another_name_for_this_machine_is_refused(live: LiveServer) -> None:
    assert live.get("/", Host="evil.example").status == 403
    assert live.get("/healthz", Host=f"localhost:{live.port}").status == 200


def test_the_token() -> None:
    with LiveServer(token="secret", frame_rate=RATE) as live:
        assert refused(live.ws)
        assert refused(live.ws + "?token=wrong")
        assert live.get("/metrics").status == 403
        assert live.get("/pictures/0").status == 403
        assert live.get("/pictures/0?token=secret").status == 200
        assert live.get("/healthz").status == 200
        with live.client("?token=secret") as client:
            client.start()
