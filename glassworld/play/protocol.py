"""The wire protocol: JSON messages for control, binary messages for frames and uploads.

Every client message is a type with bounds, so whatever `decode_message` returns is valid.
`docs/reference/protocol.md` documents the protocol for authors of other clients;
`tests/play/test_protocol.py` freezes it.
"""

from __future__ import annotations

import struct
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta, Struct

VERSION = 1

MAX_TEXT_BYTES = 16_384
"""Size of the longest control message the server accepts."""

MAX_UPLOAD_BYTES = 8 * 2**20
"""Size of the largest image the server accepts."""

MAX_SESSION_BYTES = 64 * 2**20
"""Size of the largest session file the server accepts."""

Encoding = Literal["png", "jpeg"]
Number = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Seed = Annotated[int, Meta(ge=0, le=2**53 - 1)]  # JavaScript counts exactly up to here
Axis = Annotated[float, Meta(ge=-1.0, le=1.0)]
Key = Annotated[str, Meta(min_length=1, max_length=32)]


class ProtocolError(Exception):
    """A client message that the server rejects; its text is safe to send as the close reason."""


class _Message(Struct, tag_field="type", forbid_unknown_fields=True):
    """A JSON object; its `type` is the tag of the class."""


class StartMessage(_Message, tag="start"):
    """Start a session from an image of the gallery or from `"upload"`.

    An omitted image or seed keeps that of the previous session.
    """

    version: Literal[1]
    picture: Annotated[str, Meta(max_length=64)] | None = None
    seed: Seed | None = None
    encoding: Encoding = "png"


class ActMessage(_Message, tag="act"):
    """Hold these keys from now on, and add a camera movement per frame to theirs."""

    id: Number
    keys: Annotated[list[Key], Meta(max_length=16)] = []
    mouse: tuple[Axis, Axis] = (0.0, 0.0)  # vertical, horizontal; up and right are positive


class SeenMessage(_Message, tag="seen"):
    """Report the newest frame shown; the server waits for a client two seconds behind."""

    frame: Number


class PauseMessage(_Message, tag="pause"):
    """Stop at the frame on screen."""


class ResumeMessage(_Message, tag="resume"):
    """Continue after a pause."""


class StepMessage(_Message, tag="step"):
    """While paused, play to the end of the current block or of the next one."""


class RewindMessage(_Message, tag="rewind"):
    """Go back to the start of the block on screen, or of an earlier one."""

    blocks: Annotated[int, Meta(ge=1, le=64)] = 1


class RecordMessage(_Message, tag="record"):
    """Start or stop a recording."""

    on: bool


class RecoverMessage(_Message, tag="recover"):
    """Ask for the files of a recording whose connection was lost."""

    key: Annotated[str, Meta(max_length=64)]


class CaptureMessage(_Message, tag="capture"):
    """Profile the next blocks and make a report of them."""

    blocks: Annotated[int, Meta(ge=1, le=8)] = 2


class JoinMessage(_Message, tag="join"):
    """Go on with the session that `hello` called resumed, from frame `next` on.

    An omitted encoding keeps that of the session.
    """

    next: Number
    encoding: Encoding | None = None


class SaveMessage(_Message, tag="save"):
    """Ask for the session as a file."""


class LoadMessage(_Message, tag="load"):
    """Go on from a saved session; its `bytes` follow in binary messages of at most 8 MiB."""

    bytes: Annotated[int, Meta(ge=1)]


class PingMessage(_Message, tag="ping"):
    """Ask for a pong at once, to measure the round trip."""

    id: Number


ClientMessage = (
    StartMessage
    | ActMessage
    | SeenMessage
    | PauseMessage
    | ResumeMessage
    | StepMessage
    | RewindMessage
    | RecordMessage
    | RecoverMessage
    | CaptureMessage
    | JoinMessage
    | SaveMessage
    | LoadMessage
    | PingMessage
)

_decoder = msgspec.json.Decoder(ClientMessage)


def decode_message(text: str) -> ClientMessage:
    """Return the client message in `text`; raise `ProtocolError` if there is none."""
    if len(text) > MAX_TEXT_BYTES:
        raise ProtocolError(f"control message too long; send at most {MAX_TEXT_BYTES} bytes")
    try:
        message: ClientMessage = _decoder.decode(text.encode("utf-8"))
        return message
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise ProtocolError(f"malformed message; check its fields: {error}") from None


class ControlInfo(Struct):
    """A key and its effect."""

    name: str
    key: str
    column: str | None
    mouse: tuple[float, float]


class ImageInfo(Struct):
    """A start image of the gallery."""

    id: str
    name: str


class HelloMessage(_Message, tag="hello"):
    """The first message: the loaded world and its controls."""

    version: int
    world: str
    note: str  # something the player should know about this world; may be empty
    mode: str
    width: int
    height: int
    frame_rate: int
    block_frames: int
    idle: str  # the column that means "no key"; empty where keys can be combined
    has_mouse: bool
    controls: list[ControlInfo]
    pictures: list[ImageInfo]
    token: str | None = None  # of a fleet: asks for this session after a lost connection
    resumed: bool = False  # the session runs already: send `join`, or `start` another
    replay: str = ""  # the command that replays a recording, run beside its files; may be empty


class FullMessage(_Message, tag="full"):
    """All slots are taken; the server closes the connection after this message."""

    seats: int


class ImageMessage(_Message, tag="picture"):
    """The server has accepted an upload; a session may start from `"upload"`."""

    width: int
    height: int


class StartedMessage(_Message, tag="started"):
    """A session has started; the next binary message is its start image."""

    seed: int
    picture: str


class AckMessage(_Message, tag="ack"):
    """An `act` has arrived; or, with a `block`, that block is generated under it."""

    id: int
    block: int | None = None


class StageInfo(Struct):
    """The time of one stage of a block, in milliseconds."""

    name: str
    ms: float


class BlockMessage(_Message, tag="block"):
    """A block is complete. The server sends its frames when due, the first perhaps before this."""

    number: int
    frames: int
    action: int  # id of the act message that the block used
    seconds: float  # time to generate it
    waited: float  # seconds until the device was free
    stages: list[StageInfo]
    queued: int  # frames generated but not sent yet
    stalls: int  # times this player ran out of frames
    slow: bool  # generating it took longer than playing it


class RewoundMessage(_Message, tag="rewound"):
    """The session continues from the end of block `number - 1`; that block's last frame follows."""

    number: int


class RecordingMessage(_Message, tag="recording"):
    """A recording has started, or it has stopped and its files are ready.

    After a lost connection, `key` asks for the files.
    """

    on: bool
    frames: int = 0
    video: str | None = None
    actions: str | None = None
    picture: str | None = None
    key: str | None = None


class CapturedMessage(_Message, tag="captured"):
    """A trace is ready; `report` is None if the report failed."""

    trace: str
    report: str | None


class LateFrameInfo(Struct):
    """A frame that was sent late, and the files that show what the server did before it."""

    time: float  # seconds since 1970, UTC
    block: int
    frame: int
    action: int  # id of the act message that the frame's block used
    late: float  # seconds
    trace: str
    report: str | None


class LateFramesMessage(_Message, tag="late_frames"):
    """The flight recordings of this server that can be downloaded, the oldest first."""

    frames: list[LateFrameInfo]


class SavedMessage(_Message, tag="saved"):
    """The session before block `number` is a file at the URL path `file`."""

    number: int
    file: str


class JoinedMessage(_Message, tag="joined"):
    """The session goes on; `number` is the next block to be generated."""

    number: int
    seed: int
    picture: str


class LoadedMessage(_Message, tag="loaded"):
    """A saved session goes on with block `number`; a still of the frame before it follows."""

    number: int
    seed: int


class MovedMessage(_Message, tag="moved"):
    """The session goes on at another server: connect to `url` with `ticket`, then `join`."""

    url: str
    ticket: str


class NoticeMessage(_Message, tag="notice"):
    """A text for the player; the session continues."""

    text: str


class PongMessage(_Message, tag="pong"):
    """The answer to a ping."""

    id: int


class ErrorMessage(_Message, tag="error"):
    """The reason why the server closes the connection."""

    text: str


ServerMessage = (
    HelloMessage
    | FullMessage
    | ImageMessage
    | StartedMessage
    | BlockMessage
    | RewoundMessage
    | RecordingMessage
    | CapturedMessage
    | LateFramesMessage
    | AckMessage
    | SavedMessage
    | JoinedMessage
    | LoadedMessage
    | MovedMessage
    | NoticeMessage
    | PongMessage
    | ErrorMessage
)


def encode_message(message: ServerMessage) -> str:
    """Return `message` as JSON text."""
    return msgspec.json.encode(message).decode()


FRAME, STILL = 1, 2
"""Kinds of binary message: a frame of the session; an image to show at once."""

_ENCODINGS: tuple[Encoding, ...] = ("png", "jpeg")
_HEADER = struct.Struct("<BBHIII")


class FrameHeader(NamedTuple):
    """The 16 bytes before an encoded image, little-endian: u8, u8, u16, u32, u32, u32."""

    kind: int
    encoding: Encoding
    position: int  # of the frame in its block
    block: int
    frame: int  # in the session, from 0
    action: int  # id of the act message that the frame's block used

    def pack(self) -> bytes:
        """Return the header as bytes."""
        return _HEADER.pack(self.kind, _ENCODINGS.index(self.encoding), *self[2:])


def unpack_frame(message: bytes) -> tuple[FrameHeader, bytes]:
    """Split a binary message into its header and the encoded image."""
    kind, encoding, *numbers = _HEADER.unpack_from(message)
    return FrameHeader(kind, _ENCODINGS[encoding], *numbers), message[_HEADER.size :]
