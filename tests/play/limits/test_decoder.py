"""Uploads: decoded one at a time in a process that has limits."""

from __future__ import annotations

import asyncio
import io
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glassworld.errors import ImageError
from glassworld.play.images import prepare_image
from glassworld.play.limits.decoder import ImageDecoder
from tests.support import tiny
from tests.support.live import RATE, LiveServer, until


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decode(data: bytes) -> tuple[np.ndarray, int]:
    image, pixels = asyncio.run(ImageDecoder().decode(data, "mine", 32, 48))
    return np.asarray(image.image), pixels


def many_scans(scans: int) -> bytes:
    """Return a progressive JPEG of 1024 x 1024 pixels whose last scan is repeated."""
    data = encoded(tiny.picture(1024, 1024), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * scans + data[-2:]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_image_is_the_same_as_in_this_process(kind: str) -> None:
    data = encoded(tiny.picture(90, 70), kind)
    pixels, count = decode(data)
    np.testing.assert_array_equal(pixels, np.asarray(prepare_image(data, "mine", 32, 48)[0].image))
    assert count == 90 * 70


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GIF89a", "not a PNG, JPEG or WebP"),
        (b"\xff\xd8\xff" + bytes(99), "not a PNG, JPEG or WebP"),
        (encoded(tiny.picture(90, 70))[:150], "damaged"),
        (encoded(Image.new("1", (8000, 4000))), "16 megapixels"),
        (encoded(Image.new("1", (8, 8))), "at least 16"),
        (many_scans(400), "too many scans"),
    ],
)
def test_image_that_cannot_be_used_is_an_image_error(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=f"mine: .*{reason}"):
        decode(data)


def test_image_that_takes_too_long_ends_with_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glassworld.play.limits.decoder.WALL_SECONDS", 0.05)
    with pytest.raises(ImageError, match="too much time"):
        decode(encoded(tiny.picture()))


def processes_below(pid: int) -> list[str]:
    """Return the command lines of this process's children."""
    children = [read(path) for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return [read(Path(f"/proc/{child}/cmdline")) for child in " ".join(children).split()]


def read(path: Path) -> str:
    """Return the text of a file of /proc, which is empty for a thread or process that has ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return path.read_text(encoding="utf-8")
    return ""


def decoders(command: str = "limits.decoder") -> int:
    return sum(command in line for line in processes_below(os.getpid()))


needs_proc = pytest.mark.skipif(not Path("/proc").is_dir(), reason="counts processes in /proc")


@needs_proc
def test_uploads_are_decoded_one_at_a_time() -> None:
    data = encoded(tiny.picture(900, 900), "PNG")
    with LiveServer(frame_rate=RATE) as live, ExitStack() as stack:
        clients = [stack.enter_context(live.client()) for _ in range(3)]
        for client in clients:
            client.socket.send(data)
        with ThreadPoolExecutor(3) as threads:
            answers = [threads.submit(client.wait_for, "picture") for client in clients]
            counts = set()
            while not all(answer.done() for answer in answers):
                counts.add(decoders())
                time.sleep(0.005)
        assert max(counts) == 1
        assert [answer.result()["width"] for answer in answers] == [48] * 3


@needs_proc
def test_closing_does_not_wait_for_an_upload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glassworld.play.limits.decoder.WALL_SECONDS", 600.0)
    endless = tmp_path / "endless"
    endless.write_text("#!/bin/sh\nexec sleep 600\n", encoding="utf-8")
    endless.chmod(0o755)
    monkeypatch.setattr("glassworld.play.limits.decoder.sys.executable", str(endless))
    with LiveServer(frame_rate=RATE) as live:
        client = live.client().__enter__()
        client.start()
        client.socket.send(encoded(tiny.picture()))
        assert until(lambda: decoders("sleep") == 1)
        assert len(list(client.frames(24))) == 24
    assert until(lambda: decoders("sleep") == 0)
