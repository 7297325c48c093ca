"""What files are that are not what their names say."""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path

import pytest

from glassworld.file_signatures import HEAD_BYTES, describe_content, read_head


def workbook() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("[Content_Types].xml", "<Types/>")
        file.writestr("xl/workbook.xml", "<workbook/>")
    return content.getvalue()


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"", "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\n", "a Git LFS pointer"),
        (b"<!DOCTYPE html>\n<html>", "a web page"),
        (b"\xef\xbb\xbf\n <HTML><head>", "a web page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "an XML document"),
        (b'<?xml version="1.0"?>\n<svg/>', "an SVG drawing"),
        (b'{"error":"Repository not found"}', "a server's error message"),
        (bytes(200), "a file that begins with zeros"),
        (workbook(), "an Excel workbook"),
        (b"PK\x03\x04" + bytes(40), "a zip archive"),
        (gzip.compress(b"text", mtime=0), "a file compressed by gzip"),
        (bytes(3) + b"\x18ftypheic", "a HEIC photo"),
        (bytes(3) + b"\x18ftypisom", "a video"),
    ],
)
def test_describe_content_names_what_a_download_left(head: bytes, kind: str) -> None:
    described = describe_content(head)
    assert described is not None
    assert described.startswith(kind)


@pytest.mark.parametrize("head", [b"w*12 w+left*24", b"forward,back\n", b"[[1, 0]]", b"\n", b"PK"])
def test_describe_content_knows_nothing_of_plain_text(head: bytes) -> None:
    assert describe_content(head) is None


def test_read_head_is_the_beginning(tmp_path: Path) -> None:
    path = tmp_path / "long"
    path.write_bytes(bytes(range(256)) * 40)
    assert read_head(path) == path.read_bytes()[:HEAD_BYTES]
