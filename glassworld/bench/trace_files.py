"""Makes a large trace out of a small one by repeating it, each repetition later than the last.

    python -m glassworld.bench.trace_files outputs/profile_trace.json large.json --megabytes 400

The reader's speed and memory are measured on such files.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from glassworld.errors import InputError
from glassworld.files import replacing

_TIME = re.compile(rb'("ts"\s*:\s*)(\d+)(?:\.(\d+))?')
_ID = re.compile(rb'("(?:correlation|id)"\s*:\s*)(\d+)')
_DURATION = re.compile(rb'"dur"\s*:\s*(\d+)')
_PAUSE_US = 1000


def repeat(source: Path, target: Path, size: int) -> int:
    """Write repetitions of `source`'s events until `target` has `size` bytes; returns how many.

    Times move on by the length of the run, correlation and flow ids by their range, so that the
    whole is one long run. Memory: a few times the source.
    """
    try:
        parts = msgspec.json.decode(source.read_bytes(), type=dict[str, msgspec.Raw])
        events = bytes(parts.pop("traceEvents")).strip()[1:-1]
    except (msgspec.MsgspecError, KeyError, OSError) as error:
        raise InputError(f"{source}: not a plain torch trace: {error}") from error
    head = msgspec.json.encode(parts)[:-1] + (b"," if parts else b"") + b'"traceEvents":['
    times = [int(match[2]) for match in _TIME.finditer(events)]
    longest = max((int(match[1]) for match in _DURATION.finditer(events)), default=0)
    period = max(times) - min(times) + longest + _PAUSE_US
    ids = max((int(match[2]) for match in _ID.finditer(events)), default=0) + 1
    count, written = 0, 0
    with replacing(target) as partial, partial.open("wb") as file:
        file.write(head)
        while not count or written < size:
            later = _later(events, count * period, count * ids) if count else events
            file.write(b"," if count else b"")
            file.write(later)
            written += len(later)
            count += 1
        file.write(b"]}")
    return count


def _later(events: bytes, microseconds: int, ids: int) -> bytes:
    def moved(match: re.Match[bytes]) -> bytes:
        decimals = b"." + match[3] if match[3] else b""
        return match[1] + b"%d" % (int(match[2]) + microseconds) + decimals

    def renamed(match: re.Match[bytes]) -> bytes:
        return match[1] + b"%d" % (int(match[2]) + ids)

    return _ID.sub(renamed, _TIME.sub(moved, events))


def main(
    source: Annotated[Path, typer.Argument(help="A plain .json trace.")],
    target: Annotated[Path, typer.Argument(help="The large trace to write.")],
    megabytes: Annotated[int, typer.Option(min=1, help="How large, at least.")] = 400,
) -> None:
    """Repeat a trace until it is large."""
    count = repeat(source, target, megabytes * 1_000_000)
    typer.echo(f"{target}: {count} repetitions, {target.stat().st_size / 1e6:,.0f} MB")


if __name__ == "__main__":
    typer.run(main)
