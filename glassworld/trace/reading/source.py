"""Read the bytes of a trace file, and cut them into pieces of whole events.

The file may be plain, gzip, or the only one in a tar or zip archive; its text UTF-8 or UTF-16.

A trace is one JSON object with a `traceEvents` array of up to millions of events, or that array
alone. Nothing here parses JSON: pieces are cut where one event object ends and another begins,
and the reader says whether a cut was good by decoding the piece.
"""

from __future__ import annotations

import codecs
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from io import UnsupportedOperation
from itertools import chain
from pathlib import Path
from typing import IO

from glassworld.errors import TraceError

PIECE_BYTES = 8 << 20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_HEAD_LIMIT = 64 << 20  # metadata in front of the events is kilobytes; more is no trace
_TAR_MARK = slice(257, 262)
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")  # of an archive with and without files
_OTHER_COMPRESSION = {b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_WIDE = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_ARRAY = re.compile(rb'"traceEvents"\s*:\s*\[')
_EVENT_START = rb'\{\s*"(?:ph|name|cat|pid|tid|ts|dur)"\s*:'
_BOUNDARY = re.compile(rb"\}\s*,\s*(?=" + _EVENT_START + rb")")
_ANY_BOUNDARY = re.compile(rb"\}\s*,\s*(?=\{)")


class TraceFile:
    """Reads a trace's bytes in order.

    After `open_events`, `head` is the JSON text in front of the first event. `losses` says in
    words what could not be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.losses: list[str] = []
        self.head = b""
        self.bytes_read = 0
        self._blocks = self._open()

    def peek(self) -> bytes:
        """Return the first piece of the file, which `read` still returns.

        Raises `TraceError` if the file cannot be read.
        """
        first = next(self._blocks, b"")
        self._blocks = chain((first,), self._blocks)
        return first

    def read(self) -> bytes:
        """Return the next piece of the file, decompressed; empty at the end, however it ends.

        Raises `TraceError` if the file cannot be read.
        """
        block = next(self._blocks, b"")
        self.bytes_read += len(block)
        return block

    def _open(self) -> Iterator[bytes]:
        try:
            with self.path.open("rb") as file:
                yield from self._contents(file)
        except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
            raise TraceError(
                f"{self.path}: a damaged archive: {error}; use another copy"
            ) from error
        except IsADirectoryError as error:
            raise TraceError(f"{self.path}: is a folder; name a trace in it") from error
        except UnsupportedOperation as error:  # a pipe cannot be sought in
            raise TraceError(
                f"{self.path}: is no file but a stream; write it to a file and name that"
            ) from error
        except OSError as error:
            raise TraceError(f"{self.path}: cannot be read: {error.strerror or error}") from error

    def _contents(self, file: IO[bytes]) -> Iterator[bytes]:
        """Yield the contents of a file, or of the only file in an archive."""
        start = file.read(_TAR_MARK.stop)
        file.seek(0)
        for mark, kind in _OTHER_COMPRESSION.items():
            if start.startswith(mark):
                raise TraceError(
                    f"{self.path}: is compressed with {kind}; decompress it, or use gzip"
                )
        if start.startswith(_ZIP):
            with zipfile.ZipFile(file) as archive:
                names = [info.filename for info in archive.infolist() if not info.is_dir()]
                with archive.open(self._only("zip", names)) as member:
                    yield from self._contents(member)
            return
        compressed = start.startswith(b"\x1f\x8b")
        blocks = self._inflate(file) if compressed else iter(lambda: file.read(PIECE_BYTES), b"")
        first = next(blocks, b"")
        if first[_TAR_MARK] != b"ustar":
            yield from _as_utf8(first, blocks)
            return
        file.seek(0)
        with tarfile.open(fileobj=file, mode="r:*") as tar:
            names = [member.name for member in tar if member.isfile()]
            extracted = tar.extractfile(self._only("tar", names))
            if extracted:
                yield from self._contents(extracted)

    def _only(self, kind: str, names: list[str]) -> str:
        """Return the name of the only file in an archive. Raises `TraceError` if it has others."""
        if len(names) == 1:
            return names[0]
        raise TraceError(
            f"{self.path}: a {kind} archive of {len(names)} files: unpack it and name one of them; "
            "`glassworld trace merge` takes several"
        )

    def _inflate(self, file: IO[bytes]) -> Iterator[bytes]:
        """Yield the contents of a gzip file, up to where it is damaged."""
        gzip = 16 + zlib.MAX_WBITS
        inflater = zlib.decompressobj(gzip)
        try:
            while block := file.read(1 << 20):
                while block:
                    if inflater.eof:  # another member follows
                        inflater = zlib.decompressobj(gzip)
                    if text := inflater.decompress(block, PIECE_BYTES):
                        yield text
                    block = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
            damage = "" if inflater.eof else "it ends before its contents do"
        except zlib.error as error:
            damage = str(error)
        if damage:
            self.losses.append(f"the compressed file is cut short or damaged ({damage})")

    def open_events(self) -> bytes:
        """Read up to the first event; return the bytes already read from there on.

        Raises `TraceError` if there are no events.
        """
        buffer = self.read().removeprefix(_BYTE_ORDER_MARK)
        if not buffer:
            reason = "; ".join(self.losses) or "the file is empty"
            raise TraceError(f"{self.path}: not a trace: {reason}; name one of torch.profiler")
        while True:
            if buffer.lstrip().startswith(b"["):
                self.head = b"["
                return buffer.lstrip()[1:]
            array = _ARRAY.search(buffer)
            if array:
                self.head = buffer[: array.end()]
                return buffer[array.end() :]
            block = self.read() if len(buffer) < _HEAD_LIMIT else b""
            if not block:
                raise TraceError(
                    f"{self.path}: not a torch trace: no traceEvents in it (expected the JSON "
                    "that torch.profiler exports, SQLite of nsys, JSON of rocprofv3, an XPlane, "
                    "a Perfetto trace or a memory snapshot)"
                )
            buffer += block


def _as_utf8(first: bytes, blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the blocks of a text; in UTF-8, if it begins with the byte-order mark of UTF-16."""
    wide = _WIDE.get(first[:2])
    if wide is None:
        yield first
        yield from blocks
        return
    decoder = codecs.getincrementaldecoder(wide)("replace")
    for block in chain((first,), blocks):
        yield decoder.decode(block).encode("utf-8", "replace")
    yield decoder.decode(b"", final=True).encode("utf-8", "replace")


def event_boundaries(buffer: bytes, most: int = 6) -> Iterator[tuple[int, int]]:
    """Yield where `buffer` may be cut between events, last first: (end of one, start of next).

    These are the last `most` boundaries at most, of a tail of the buffer that is widened until it
    has some. Text inside a string may look like a boundary: the caller must check by decoding.
    """
    for pattern in (_BOUNDARY, _ANY_BOUNDARY):
        width = 1 << 16
        while True:
            low = max(0, len(buffer) - width)
            cuts = [(low + m.start() + 1, low + m.end()) for m in pattern.finditer(buffer[low:])]
            if cuts or low == 0:
                break
            width *= 8
        yield from reversed(cuts[-most:])
        if cuts:
            return


def first_boundary(buffer: bytes) -> tuple[int, int] | None:
    """Return the first place where `buffer` may be cut; `event_boundaries` yields the last ones."""
    match = _BOUNDARY.search(buffer) or _ANY_BOUNDARY.search(buffer)
    return (match.start() + 1, match.end()) if match else None


def split_events(buffer: bytes) -> list[bytes]:
    """Cut `buffer` at everything that looks like a boundary between events."""
    pieces, at = [], 0
    for match in _BOUNDARY.finditer(buffer):
        pieces.append(buffer[at : match.start() + 1])
        at = match.end()
    pieces.append(buffer[at:])
    return pieces
