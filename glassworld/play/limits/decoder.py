"""Decode uploaded images one at a time, in a process with limits on time and memory.

A crafted image of a few megabytes can take minutes and gigabytes to decode. The process ends with
its limits, or with the server, and its memory goes with it.
"""

from __future__ import annotations

import asyncio
import os
import struct
import sys
from contextlib import suppress

from PIL import Image

from glassworld.errors import ImageError
from glassworld.play.images import StartImage, prepare_image

CPU_SECONDS, MAX_BYTES = 10, 2 * 2**30
"""Processor time and address space of one decoding. 16 megapixels take about a second."""

WALL_SECONDS = 30.0
"""Time of one decoding on a machine that is busy, or has no limits on processor time."""

NICENESS = 10

SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF")
"""The first bytes of a PNG, a JPEG and a WebP."""

_PIXELS = struct.Struct("<Q")
_REFUSED, _TIMED_OUT = 2, -1


class ImageDecoder:
    """Decodes the uploads of all players, in turn."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def decode(
        self, data: bytes, name: str, height: int, width: int
    ) -> tuple[StartImage, int]:
        """Return an image cropped to `height` and `width`, and how many pixels it had.

        Raises `ImageError` if it is invalid, too large, or costs too much to decode.
        """
        if not data.startswith(SIGNATURES):
            raise ImageError(f"{name}: not a PNG, JPEG or WebP image; convert it")
        async with self._turn:
            status, output = await _run_process(data, str(height), str(width))
        if status == _REFUSED:
            raise ImageError(f"{name}: {output.decode()}")
        if status != 0 or len(output) != _PIXELS.size + height * width * 3:
            raise ImageError(f"{name}: takes too much time or memory; save it as a plain JPEG")
        image = Image.frombytes("RGB", (width, height), output[_PIXELS.size :])
        return StartImage(name, image), _PIXELS.unpack_from(output)[0]


async def _run_process(data: bytes, *arguments: str) -> tuple[int, bytes]:
    """Return the exit code and the output of a process that decodes `data`."""
    pipe, quiet = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "glassworld.play.limits.decoder", *arguments),
        stdin=pipe,
        stdout=pipe,
        stderr=quiet,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
    )
    try:
        async with asyncio.timeout(WALL_SECONDS):
            output, _ = await process.communicate(data)
    except TimeoutError:
        return _TIMED_OUT, b""
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, output


def _limit_process() -> None:
    if sys.platform == "win32":
        return
    import resource  # Windows has no such module

    os.nice(NICENESS)
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 1))
    with suppress(ValueError, OSError):  # macOS refuses any limit on address space
        resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))


def _decode_input(height: int, width: int) -> int:
    """Decode the image in standard input; write its size and pixels, or why it is refused."""
    _limit_process()
    output = sys.stdout.buffer
    try:
        image, pixels = prepare_image(sys.stdin.buffer.read(), "", height, width)
    except ImageError as error:
        output.write(str(error).partition(": ")[2].encode())
        return _REFUSED
    except MemoryError:
        output.write(b"needs too much memory; scale it down first")
        return _REFUSED
    output.write(_PIXELS.pack(pixels) + image.image.tobytes())
    return 0


if __name__ == "__main__":
    sys.exit(_decode_input(*map(int, sys.argv[1:])))
