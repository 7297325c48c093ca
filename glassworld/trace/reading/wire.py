"""Decode and encode the wire format of protocol buffers, of which traces need little.

A message is a sequence of fields: a key (the field's number and how it is stored) and a value. The
format is documented at protobuf.dev; it has no header, and a reader skips fields it does not know.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from glassworld.errors import TraceError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

Field = tuple[int, int, int | bytes]
"""A field's number, how it is stored, and its value: an integer or bytes."""

_LONGEST_VARINT = 10
_LARGEST_MESSAGE = 1 << 31  # a limit of the format: what claims more is damage


class WireError(TraceError):
    """Bytes that are no message, or end within one."""


def fields(message: bytes | memoryview) -> Iterator[Field]:
    """Yield the fields of a message in order. Raises `WireError` where it is damaged."""
    at, end = 0, len(message)
    while at < end:
        key = message[at]
        at += 1
        if key >= 0x80:  # most keys and sizes are one byte
            key, at = varint(message, at - 1)
        kind = key & 7
        value: int | bytes
        if kind in (VARINT, BYTES):
            size = message[at] if at < end else 0x80
            at += 1
            if size >= 0x80:
                size, at = varint(message, at - 1)
            value = size
            if kind == BYTES:
                value, at = bytes(message[at : at + size]), at + size
        elif kind == FIXED64:
            value, at = int.from_bytes(message[at : at + 8], "little"), at + 8
        elif kind == FIXED32:
            value, at = int.from_bytes(message[at : at + 4], "little"), at + 4
        else:
            raise WireError(f"no protocol buffer: a field of the kind {kind}")
        if at > end or key < 8:
            raise WireError("a protocol buffer that ends within a field")
        yield key >> 3, kind, value


def varint(data: bytes | bytearray | memoryview, at: int) -> tuple[int, int]:
    """Return the integer of variable length at a position, and the position behind it."""
    value = shift = 0
    if at < len(data) and data[at] < 0x80:
        return data[at], at + 1
    for byte in data[at : at + _LONGEST_VARINT]:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at + shift // 7
    raise WireError("a protocol buffer that ends within a number")


def messages(read: Callable[[], bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield the number and the content of each message in a file that is a sequence of them.

    `read` returns the next piece of the file, empty at its end. Raises `WireError` where the file
    is damaged or ends within a message.
    """
    buffer, at, needed = bytearray(), 0, 1
    while True:
        if len(buffer) - at < needed:
            del buffer[:at]
            at = 0
            while len(buffer) < needed and (piece := read()):
                buffer += piece
            if not buffer:
                return
            if len(buffer) < needed:
                raise WireError(f"it ends in the middle: its last {len(buffer):,} bytes are lost")
        try:
            key, start = varint(buffer, at)
            size, start = varint(buffer, start)
        except WireError:
            if len(buffer) - at >= 2 * _LONGEST_VARINT:
                raise
            needed = len(buffer) - at + 1
            continue
        if key & 7 != BYTES or size > _LARGEST_MESSAGE:
            raise WireError(f"it is damaged {len(buffer) - at:,} bytes or more before its end")
        needed = start - at + size
        if len(buffer) - at >= needed:
            yield key >> 3, bytes(buffer[start : start + size])
            at, needed = at + needed, 1


def first_message(start: bytes) -> list[Field]:
    """Return the fields of the first message of a file, as far as its first piece has them.

    Empty if the file is no sequence of messages.
    """
    found: list[Field] = []
    at = size = 0
    try:
        key, at = varint(start, 0)
        size, at = varint(start, at)
        if key != 1 << 3 | BYTES or not size:
            return []
        for field in fields(memoryview(start)[at : at + size]):
            found.append(field)
    except WireError:
        return found if at + size > len(start) else []
    return found


def signed(value: int | bytes) -> int:
    """Return an integer field as a signed one of 64 bits. Raises `WireError`."""
    if isinstance(value, bytes):
        raise WireError("a protocol buffer with a text or message where a number belongs")
    return value - (1 << 64) if value >= 1 << 63 else value


def double_of(value: int | bytes) -> float:
    """Return a field of 64 bits as a floating-point number. Raises `WireError`."""
    bits = signed(value)
    number: float = struct.unpack("<d", struct.pack("<q", bits))[0]
    return number


def submessage(value: int | bytes) -> bytes:
    """Return a field of bytes, as which text and messages are stored. Raises `WireError`."""
    if isinstance(value, int):
        raise WireError("a protocol buffer with a number where a text or message belongs")
    return value


def text_of(value: int | bytes) -> str:
    """Return a field of bytes as text. Raises `WireError`."""
    return submessage(value).decode("utf-8", "replace")


def encode_varint(value: int) -> bytes:
    """Return a non-negative integer in variable length."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def encode_field(number: int, value: int | float | str | bytes) -> bytes:
    """Return a field: integers as varints, floats as doubles, text and messages as bytes."""
    if isinstance(value, float):
        return encode_varint(number << 3 | FIXED64) + struct.pack("<d", value)
    if isinstance(value, int):
        return encode_varint(number << 3 | VARINT) + encode_varint(value & 0xFFFF_FFFF_FFFF_FFFF)
    content = value.encode("utf-8", "replace") if isinstance(value, str) else value
    return encode_varint(number << 3 | BYTES) + encode_varint(len(content)) + content
