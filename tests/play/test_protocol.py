from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glassworld.play import protocol

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
KINDS = ["start", "act", "seen", "pause", "resume", "step", "rewind", "record", "capture", "ping"]
FIELDS = ["version", "picture", "seed", "encoding", "id", "keys", "mouse", "frame", "blocks", "on"]


def test_a_message_is_taken_apart() -> None:
    message = protocol.decode_message('{"type": "act", "id": 7, "keys": ["w"], "mouse": [0, 0.1]}')
    assert message == protocol.ActMessage(7, ["w"], (0.0, 0.1))


@pytest.mark.parametrize(
    "message",
    [
        {"type": "start", "version": 2},
        {"type": "start", "version": 1, "seed": -1},
        {"type": "start", "version": 1, "seed": 2**53},
        {"type": "start", "version": 1, "picture": "x" * 65},
        {"type": "act", "id": 1, "keys": ["w"] * 17},
        {"type": "act", "id": 1, "keys": ["w" * 33]},
        {"type": "act", "id": 1, "mouse": [0, 1.01]},
        {"type": "act", "id": 2**32},
        {"type": "rewind", "blocks": 0},
        {"type": "capture", "blocks": 9},
        {"type": "pause", "more": 1},
        {"type": "hello"},
        [],
    ],
)
def test_bounds(message: Any) -> None:
    with pytest.raises(protocol.ProtocolError, match="malformed"):
        protocol.decode_message(json.dumps(message))


def test_long_and_deep_messages() -> None:
    with pytest.raises(protocol.ProtocolError, match="too long"):
        protocol.decode_message(" " * protocol.MAX_TEXT_BYTES + "{}")
    with pytest.raises(protocol.ProtocolError):
        protocol.decode_message("[" * 16_000)
    with pytest.raises(protocol.ProtocolError):
        protocol.decode_message('{"type": "act", "id": 1, "keys": ["\ud800"]}')


@given(st.text() | JSON.map(lambda value: json.dumps(value)))
def test_anything_is_a_message_or_a_protocol_error(text: str) -> None:
    try:
        message = protocol.decode_message(text)
    except protocol.ProtocolError:
        return
    assert isinstance(message, protocol.ClientMessage)


@given(st.sampled_from(KINDS), st.dictionaries(st.sampled_from(FIELDS), JSON))
def test_whatever_passes_is_in_bounds(kind: str, fields: dict[str, Any]) -> None:
    try:
        message = protocol.decode_message(json.dumps({"type": kind, **fields}))
    except protocol.ProtocolError:
        return
    if isinstance(message, protocol.ActMessage):
        assert all(-1 <= axis <= 1 for axis in message.mouse)
        assert len(message.keys) <= 16
    if isinstance(message, protocol.StartMessage):
        assert message.seed is None or 0 <= message.seed < 2**53


@given(
    st.sampled_from([protocol.FRAME, protocol.STILL]),
    st.sampled_from(["png", "jpeg"]),
    st.integers(0, 2**16 - 1),
    st.tuples(*[st.integers(0, 2**32 - 1)] * 3),
    st.binary(),
)
def test_headers_come_back(
    kind: int, encoding: protocol.Encoding, place: int, numbers: tuple[int, int, int], body: bytes
) -> None:
    header = protocol.FrameHeader(kind, encoding, place, *numbers)
    assert len(header.pack()) == 16
    assert protocol.unpack_frame(header.pack() + body) == (header, body)
