"""What a file is that is not what its name says, told by its first bytes.

A failed download leaves a web page or a pointer under the name of a checkpoint, a spreadsheet is
saved as `walk.csv`, a phone writes its photos in a format of its own. Readers ask here why a file
makes no sense to them, so that the error says what it is.
"""

from __future__ import annotations

import re
from pathlib import Path

HEAD_BYTES = 1024
"""How much of a file tells what it is."""

_AGAIN = "download it again"
_SIGNATURES = tuple(
    (re.compile(pattern, re.DOTALL), kind)
    for pattern, kind in (
        (rb"\Z", "an empty file (save or download it again)"),
        (rb"version https://git-lfs\.", "a Git LFS pointer (run `git lfs pull`)"),
        (rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml.*)?<svg", "an SVG drawing"),
        (rb"(?:\xef\xbb\xbf)?\s*<(?i:!doctype html|html|head|body)", f"a web page ({_AGAIN})"),
        (rb"(?:\xef\xbb\xbf)?\s*<\?xml", f"an XML document ({_AGAIN})"),
        (rb"\s*\{\s*\"(?:error|message|detail)\"", f"a server's error message ({_AGAIN})"),
        (rb"\x00{64}", f"a file that begins with zeros, as an unfinished download ({_AGAIN})"),
        (rb"PK\x03\x04.*\[Content_Types\]", "an Excel workbook (export it as CSV)"),
        (rb"PK\x03\x04.{26}mimetypeapplication/vnd\.oasis", "an OpenDocument file (export it)"),
        (rb"PK\x03\x04", "a zip archive (unpack it)"),
        (rb"\xd0\xcf\x11\xe0", "an Excel workbook (export it as CSV)"),
        (rb"\x1f\x8b", "a file compressed by gzip (unpack it)"),
        (rb"BZh", "a file compressed by bzip2 (unpack it)"),
        (rb"\xfd7zXZ", "a file compressed by xz (unpack it)"),
        (rb"\x28\xb5\x2f\xfd", "a file compressed by zstd (unpack it)"),
        (rb"7z\xbc\xaf|Rar!", "an archive (unpack it)"),
        (rb"GGUF", "a GGUF file"),
        (rb"\x89HDF\r\n", "an HDF5 file"),
        (rb"\x93NUMPY", "a NumPy array"),
        (rb"PAR1", "a Parquet table"),
        (rb"%PDF-", "a PDF"),
        (rb"%!PS-", "a PostScript drawing"),
        (rb".{4}ftyp(?:heic|heix|hevc|mif1|msf1)", "a HEIC photo (save it as JPEG)"),
        (rb".{4}ftyp", "a video"),
        (rb"\x1aE\xdf\xa3", "a video"),
    )
)


def describe_content(head: bytes) -> str | None:
    """Return what a file is that begins with `head`, as "a web page (download it again)".

    None for anything not known, such as plain text. An image, a checkpoint or a text is not
    described: whoever reads those knows them better.
    """
    return next((kind for pattern, kind in _SIGNATURES if pattern.match(head)), None)


def read_head(path: Path) -> bytes:
    """Return the first bytes of a file; raises `OSError` if it cannot be read."""
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)
