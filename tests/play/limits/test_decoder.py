"""Uploads: decoded one at a time in a process that has limits."""

from __future__ import annotations

import asyncio
import io
import os
import time
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
    children = Path(f"/proc/{pid}/task").glob("*/children")
    names = " ".join(path.read_text() for path in children).split()
    return [Path(f"/proc/{name}/cmdline").read_text(encoding="utf-8") for name in names]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="counts processes in /proc")
def test_uploads_are_decoded_one_at_a_time_and_closing_does_not_wait(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (3500, 3500, 3), np.uint8)
    slow = encoded(Image.fromarray(noise), "JPEG", quality=60)

    def decoders() -> int:
        return sum("decoder" in line for line in processes_below(os.getpid()))

    with LiveServer(frame_rate=RATE) as live:
        clients = [live.client().__enter__() for _ in range(3)]
        clients[0].start()
        for client in clients:
            client.socket.send(slow)
        assert until(lambda: decoders() == 1)
        assert len(list(clients[0].frames(24))) == 24
        assert decoders() == 1
        began = time.monotonic()
    assert time.monotonic() - began < 8  # three seconds for the connections, and what is running
    assert until(lambda: decoders() == 0, 2)
