"""The wire protocol: frozen names, bounds, and binary headers."""

from __future__ import annotations

import json
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glassworld.play import protocol

CLIENT_MESSAGES = {
    "start": "version picture? seed? encoding?",
    "act": "id keys? mouse?",
    "seen": "frame",
    "pause": "",
    "resume": "",
    "step": "",
    "rewind": "blocks?",
    "record": "on",
    "recover": "key",
    "capture": "blocks?",
    "join": "next encoding?",
    "save": "",
    "load": "bytes",
    "ping": "id",
}
SERVER_MESSAGES = {
    "hello": "version world note mode width height frame_rate block_frames idle has_mouse "
    "controls pictures token? resumed? replay?",
    "full": "seats",
    "picture": "width height",
    "started": "seed picture",
    "block": "number frames action seconds waited stages queued stalls slow",
    "rewound": "number",
    "recording": "on frames? video? actions? picture? key?",
    "captured": "trace report",
    "late_frames": "frames",
    "ack": "id block?",
    "saved": "number file",
    "joined": "number seed picture",
    "loaded": "number seed",
    "moved": "url ticket",
    "notice": "text",
    "pong": "id",
    "error": "text",
}
"""Fields by message type, `?` after the optional ones: a change here breaks other clients."""


def fields(message: Any) -> str:
    described = msgspec.inspect.type_info(message)
    assert isinstance(described, msgspec.inspect.StructType)
    return " ".join(
        field.encode_name + ("" if field.required else "?") for field in described.fields
    )


@pytest.mark.parametrize(
    ("union", "frozen"),
    [(protocol.ClientMessage, CLIENT_MESSAGES), (protocol.ServerMessage, SERVER_MESSAGES)],
)
def test_message_types_and_fields_are_frozen(union: Any, frozen: dict[str, str]) -> None:
    messages = get_args(union)
    assert {kind.__struct_config__.tag: fields(kind) for kind in messages} == frozen
    assert {kind.__struct_config__.tag_field for kind in messages} == {"type"}


def test_nested_fields_are_frozen() -> None:
    assert fields(protocol.ControlInfo) == "name key column mouse"
    assert fields(protocol.ImageInfo) == "id name"
    assert fields(protocol.StageInfo) == "name ms"
    assert fields(protocol.LateFrameInfo) == "time block frame action late trace report"
    assert protocol.VERSION == 1


def test_encoded_messages_are_frozen() -> None:
    header = protocol.FrameHeader(protocol.FRAME, "jpeg", 2, 3, 4, 5)
    assert header.pack().hex() == "01010200" + "03000000" + "04000000" + "05000000"
    assert protocol.encode_message(protocol.ImageMessage(48, 32)) == (
        '{"type":"picture","width":48,"height":32}'
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
FIELDS = ["version", "picture", "seed", "encoding", "id", "keys", "mouse", "frame", "blocks", "on"]


def test_valid_message_is_decoded() -> None:
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
def test_message_out_of_bounds_is_malformed(message: Any) -> None:
    with pytest.raises(protocol.ProtocolError, match="malformed"):
        protocol.decode_message(json.dumps(message))


def test_message_that_is_too_long_or_too_deep_is_a_protocol_error() -> None:
    with pytest.raises(protocol.ProtocolError, match="too long"):
        protocol.decode_message(" " * protocol.MAX_TEXT_BYTES + "{}")
    with pytest.raises(protocol.ProtocolError):
        protocol.decode_message("[" * 16_000)
    with pytest.raises(protocol.ProtocolError):
        protocol.decode_message('{"type": "act", "id": 1, "keys": ["\ud800"]}')


@settings(max_examples=60)
@given(st.text() | JSON.map(lambda value: json.dumps(value)))
def test_any_text_is_a_message_or_a_protocol_error(text: str) -> None:
    try:
        message = protocol.decode_message(text)
    except protocol.ProtocolError:
        return
    assert isinstance(message, protocol.ClientMessage)


@settings(max_examples=60)
@given(st.sampled_from(list(CLIENT_MESSAGES)), st.dictionaries(st.sampled_from(FIELDS), JSON))
def test_decoded_messages_are_in_bounds(kind: str, fields: dict[str, Any]) -> None:
    try:
        message = protocol.decode_message(json.dumps({"type": kind, **fields}))
    except protocol.ProtocolError:
        return
    if isinstance(message, protocol.ActMessage):
        assert all(-1 <= axis <= 1 for axis in message.mouse)
        assert len(message.keys) <= 16
    if isinstance(message, protocol.StartMessage):
        assert message.seed is None or 0 <= message.seed < 2**53


@settings(max_examples=60)
@given(
    st.sampled_from([protocol.FRAME, protocol.STILL]),
    st.sampled_from(["png", "jpeg"]),
    st.integers(0, 2**16 - 1),
    st.tuples(*[st.integers(0, 2**32 - 1)] * 3),
    st.binary(),
)
def test_unpack_frame_returns_what_was_packed(
    kind: int,
    encoding: protocol.Encoding,
    position: int,
    numbers: tuple[int, int, int],
    body: bytes,
) -> None:
    header = protocol.FrameHeader(kind, encoding, position, *numbers)
    assert len(header.pack()) == 16
    assert protocol.unpack_frame(header.pack() + body) == (header, body)
