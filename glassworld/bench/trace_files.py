"""Large traces for benchmarks of the trace reader: a small trace, repeated along its time.

    python -m glassworld.bench.trace_files outputs/profile_trace.json large.json --megabytes 400

docs/trace.md measures the reader's speed and memory on such files.
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


def repeat_trace(source: Path, target: Path, size: int) -> int:
    """Repeat the events of `source` until `target` has `size` bytes, and return how often.

    Times shift by the length of the run, correlation and flow ids by their range: the result is one
    long run. Takes a few times the memory of the source. Raises `InputError`.
    """
    try:
        parts = msgspec.json.decode(source.read_bytes(), type=dict[str, msgspec.Raw])
        events = bytes(parts.pop("traceEvents")).strip()[1:-1]
    except (msgspec.MsgspecError, KeyError, OSError) as error:
        raise InputError(
            f"{source}: not a plain torch trace: {error}"
            "; name the JSON that torch.profiler exported"
        ) from error
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
    def shift(match: re.Match[bytes]) -> bytes:
        decimals = b"." + match[3] if match[3] else b""
        return match[1] + b"%d" % (int(match[2]) + microseconds) + decimals

    def renumber(match: re.Match[bytes]) -> bytes:
        return match[1] + b"%d" % (int(match[2]) + ids)

    return _ID.sub(renumber, _TIME.sub(shift, events))


def _main(
    source: Annotated[Path, typer.Argument(help="A plain .json trace.")],
    target: Annotated[Path, typer.Argument(help="The large trace to write.")],
    megabytes: Annotated[int, typer.Option(min=1, help="Minimum size.")] = 400,
) -> None:
    """Repeat a trace until it is large."""
    count = repeat_trace(source, target, megabytes * 1_000_000)
    typer.echo(f"{target}: {count} repetitions, {target.stat().st_size / 1e6:,.0f} MB")


if __name__ == "__main__":
    typer.run(_main)
