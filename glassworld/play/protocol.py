"""The wire protocol: JSON for control, binary messages for frames and uploads.

Everything a client may send is a type here with its bounds, so that whatever passes `decode` is
well formed. `docs/play.md` describes the protocol for people who write clients.
"""

from __future__ import annotations

import struct
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta, Struct

VERSION = 1

MOST_TEXT = 16_384
"""Bytes of the longest control message taken from a client."""

MOST_UPLOAD = 8 * 2**20
"""Bytes of the largest picture taken from a client."""

Encoding = Literal["png", "jpeg"]
Number = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Seed = Annotated[int, Meta(ge=0, le=2**53 - 1)]  # what JavaScript counts exactly
Axis = Annotated[float, Meta(ge=-1.0, le=1.0)]
Key = Annotated[str, Meta(min_length=1, max_length=32)]


class ProtocolError(Exception):
    """A message that cannot be taken; the reason is fit to be sent as the close reason."""


class _Message(Struct, tag_field="type", tag=str.lower, forbid_unknown_fields=True):
    """A JSON object whose "type" is the class's name in lower case."""


class Start(_Message):
    """Begin a walk: at a picture of the gallery or "upload", by default where the last began."""

    version: Literal[1]
    picture: Annotated[str, Meta(max_length=64)] | None = None
    seed: Seed | None = None
    encoding: Encoding = "png"


class Act(_Message):
    """The keys held from now on, and a camera movement per frame on top of theirs."""

    id: Number
    keys: Annotated[list[Key], Meta(max_length=16)] = []
    mouse: tuple[Axis, Axis] = (0.0, 0.0)  # vertical, horizontal; up and right positive


class Seen(_Message):
    """The newest frame that has been shown; the server waits for a client two seconds behind."""

    frame: Number


class Pause(_Message):
    """Stop at the frame shown."""


class Resume(_Message):
    """Play on."""


class Step(_Message):
    """Paused: play to the end of the block, or the next block."""


class Rewind(_Message):
    """Go back to the beginning of the block shown, or of one before it."""

    blocks: Annotated[int, Meta(ge=1, le=64)] = 1


class Record(_Message):
    """Begin or end a recording."""

    on: bool


class Capture(_Message):
    """Profile the next blocks fully and report on them."""

    blocks: Annotated[int, Meta(ge=1, le=8)] = 2


class Ping(_Message):
    """Answered at once, for measuring the way there and back."""

    id: Number


ClientMessage = Start | Act | Seen | Pause | Resume | Step | Rewind | Record | Capture | Ping

_decoder = msgspec.json.Decoder(ClientMessage)


def decode(text: str) -> ClientMessage:
    """The message in `text`; anything else raises a `ProtocolError`."""
    if len(text) > MOST_TEXT:
        raise ProtocolError("control message too long")
    try:
        message: ClientMessage = _decoder.decode(text.encode("utf-8"))
        return message
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise ProtocolError(f"malformed message: {error}") from None


class ControlInfo(Struct):
    """Something that a player can do by a key."""

    name: str
    key: str
    column: str | None
    mouse: tuple[float, float]


class PictureInfo(Struct):
    """A starting picture of the gallery."""

    id: str
    name: str


class Hello(_Message):
    """The first message: what this world is and what it understands."""

    version: int
    world: str
    note: str  # what a player should know about the world; "" for nothing
    mode: str
    width: int
    height: int
    frame_rate: int
    block_frames: int
    idle: str  # the column of no key; "" where keys can be combined
    has_mouse: bool
    controls: list[ControlInfo]
    pictures: list[PictureInfo]


class Full(_Message):
    """Every seat is taken; the connection is closed after it."""

    seats: int


class Picture(_Message):
    """The uploaded picture can be used; a walk may start at "upload"."""

    width: int
    height: int


class Started(_Message):
    """A walk has begun; the next binary message is its picture."""

    seed: int
    picture: str


class StageTime(Struct):
    """Milliseconds that a part of a block took."""

    name: str
    ms: float


class Block(_Message):
    """A block has been made; its frames are sent when due, the first perhaps before this."""

    number: int
    frames: int
    action: int  # the id of the act it was made under
    seconds: float  # making it
    waited: float  # seconds before the device was free
    stages: list[StageTime]
    queued: int  # frames made and not sent
    stalls: int  # times the player had to wait for the server
    slow: bool  # it took longer than it plays


class Rewound(_Message):
    """The walk goes on from the end of block `number - 1`; its last frame follows."""

    number: int


class RecordingStatus(_Message, tag="recording"):
    """A recording has begun, or has ended and can be fetched."""

    on: bool
    frames: int = 0
    video: str | None = None
    actions: str | None = None
    picture: str | None = None


class Captured(_Message):
    """A capture has been written; `report` is None where none could be made."""

    trace: str
    report: str | None


class Notice(_Message):
    """Something to tell the player; the walk goes on."""

    text: str


class Pong(_Message):
    """The answer to a ping."""

    id: int


class Error(_Message):
    """Why the connection is being closed."""

    text: str


ServerMessage = (
    Hello
    | Full
    | Picture
    | Started
    | Block
    | Rewound
    | RecordingStatus
    | Captured
    | Notice
    | Pong
    | Error
)


def encode(message: ServerMessage) -> str:
    """`message` as JSON text."""
    return msgspec.json.encode(message).decode()


FRAME, STILL = 1, 2
"""Kinds of binary message: a frame of the walk; a picture to be shown at once."""

_FORMATS: tuple[Encoding, ...] = ("png", "jpeg")
_HEADER = struct.Struct("<BBHIII")


class FrameHeader(NamedTuple):
    """The 16 bytes before a picture, little-endian: u8, u8, u16, u32, u32, u32."""

    kind: int
    encoding: Encoding
    place: int  # in its block
    block: int
    frame: int  # of the walk
    action: int  # the id of the act it was made under

    def pack(self) -> bytes:
        return _HEADER.pack(self.kind, _FORMATS.index(self.encoding), *self[2:])


def unpack(message: bytes) -> tuple[FrameHeader, bytes]:
    """The header and the encoded picture of a binary message."""
    kind, encoding, *numbers = _HEADER.unpack_from(message)
    return FrameHeader(kind, _FORMATS[encoding], *numbers), message[_HEADER.size :]
