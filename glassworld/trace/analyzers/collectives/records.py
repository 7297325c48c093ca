"""Read a rank's collectives: when they ran, and what the trace records of their messages."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from glassworld.trace.reading.columns import COLLECTIVE, DEVICE_OP, Ints, Trace
from glassworld.trace.reading.events import exact_number
from glassworld.trace.reading.formats import open_trace
from glassworld.trace.reading.reader import read_trace
from glassworld.trace.timeline.attribution import match_launches

_NAMES = {
    "allreduce": "all_reduce",
    "allgather": "all_gather",
    "reducescatter": "reduce_scatter",
    "alltoall": "all_to_all",
    "broadcast": "broadcast",
    "sendrecv": "send_recv",
    "send": "send",
    "recv": "recv",
    "barrier": "barrier",
    "gather": "gather",
    "scatter": "scatter",
    "reduce": "reduce",
}
"""Names of collectives, by what names in a trace contain; the first that fits counts."""

POINT_TO_POINT = ("send_recv", "send", "recv")

_BYTES = {
    **dict.fromkeys(("Byte", "Char", "Bool"), 1),
    **dict.fromkeys(("Short", "Half", "BFloat16"), 2),
    **dict.fromkeys(("Int", "Float", "ComplexHalf"), 4),
    **dict.fromkeys(("Long", "Double", "ComplexFloat"), 8),
    "ComplexDouble": 16,
}
"""Bytes per element, by the names of torch's types."""

_KEY = "Collective name"

_GLOO = "gloo:"
"""Prefix of the ranges in which gloo's threads run collectives on the CPU."""


@dataclass(frozen=True)
class Message:
    """What a collective sends: its name, and what the trace records of it (else None).

    `bytes` is the message size S of nccl-tests: of the larger of a rank's input and output.
    `group` tells process groups apart, by their ranks or else their name `group_name`.
    `sequence` numbers the collectives of a group from its creation on.
    """

    name: str
    dtype: str | None = None
    bytes: int | None = None
    group_size: int | None = None
    group: str = ""
    group_name: str = ""
    sequence: int | None = None


@dataclass(frozen=True)
class RankCollectives:
    """The collectives of one rank in order of their start; nanoseconds of its own clock."""

    path: Path
    begin: int
    start: Ints
    end: Ints
    messages: list[Message]
    losses: tuple[str, ...] = ()  # what of the file could not be read

    def __len__(self) -> int:
        return len(self.start)


def read_collectives(path: Path) -> RankCollectives:
    """Read the collectives of a rank's trace, with their messages: on a GPU, else those of gloo."""
    trace = read_trace(path)
    selected = [rows[rows["kind"] == COLLECTIVE] for rows in trace.device_rows.slices()]
    rows = np.concatenate([np.empty(0, DEVICE_OP), *selected])
    rows = rows[np.argsort(rows["start"], kind="stable")]
    if len(rows):
        recorded = _recorded(path)
        messages = [
            _message(trace.names[name], around | recorded.of_kernels.get(correlation, {}))
            for name, correlation, around in zip(
                rows["name"].tolist(),
                rows["correlation"].tolist(),
                recorded.around(trace, rows),
                strict=True,
            )
        ]
    else:
        rows = gloo_ranges(trace)
        messages = [_message(trace.names[name], {}) for name in rows["name"].tolist()]
    end, losses = rows["start"] + rows["dur"], tuple(trace.losses)
    return RankCollectives(path, trace.start, rows["start"], end, messages, losses)


def gloo_ranges(trace: Trace) -> npt.NDArray[np.void]:
    """Return the ranges (dtype `RANGE`) of gloo's collectives, in order of their start."""
    is_gloo = np.array([name.startswith(_GLOO) for name in trace.names], dtype=bool)
    rows: npt.NDArray[np.void] = trace.tags[is_gloo[trace.tags["name"]]]
    return rows[np.argsort(rows["start"], kind="stable")]


@dataclass(frozen=True)
class _Recorded:
    """The arguments of collectives: by the kernel's correlation id, and by the call's thread.

    A call is the operator `record_param_comms`: start and end, nanoseconds, and arguments.
    """

    of_kernels: dict[int, dict[str, Any]]
    of_calls: dict[str, list[tuple[int, int, dict[str, Any]]]]

    def around(self, trace: Trace, rows: np.ndarray[Any, Any]) -> list[dict[str, Any]]:
        """Return the arguments of the call around the launch of each kernel."""
        found = []
        for i in match_launches(rows, trace.launches).tolist():
            args: dict[str, Any] = {}
            if i >= 0:
                launch = trace.launches[i]
                at = int(launch["start"])
                calls = self.of_calls.get(_thread(trace, int(launch["thread"])), [])
                before = bisect_right(calls, at, key=lambda call: call[0]) - 1
                if before >= 0 and calls[before][1] >= at:
                    args = calls[before][2]
            found.append(args)
        return found


def _thread(trace: Trace, thread: int) -> str:
    pid, tid = trace.threads[thread]
    return f"{pid} {tid}"


def _recorded(path: Path) -> _Recorded:
    recorded = _Recorded({}, {})
    for events in open_trace(path).raw():
        for event in events:
            args = event.get("args")
            if not isinstance(args, dict) or _KEY not in args:
                continue
            if (correlation := exact_number(args.get("correlation"))) is not None:
                recorded.of_kernels[int(correlation)] = args
            elif (at := exact_number(event.get("ts"))) is not None:
                start = round(1000 * at)
                end = start + round(1000 * (exact_number(event.get("dur")) or 0))
                thread = f"{event.get('pid')} {event.get('tid')}"
                recorded.of_calls.setdefault(thread, []).append((start, end, args))
    for calls in recorded.of_calls.values():
        calls.sort(key=lambda call: call[0])
    return recorded


def _message(kernel: str, args: dict[str, Any]) -> Message:
    dtype = args.get("dtype")
    sizes = [_count(args.get(f"{way} msg nelems")) for way in ("In", "Out")]
    elements = max((size for size in sizes if size is not None), default=None)
    each = _element_bytes(str(dtype)) if dtype else None
    ranks = str(args.get("Process Group Ranks") or "")
    name = str(args.get("Process Group Name") or "")
    group = ranks if ranks not in ("", "[]") else name
    return Message(
        name=_name(str(args.get(_KEY) or "")) or _name(kernel) or kernel,
        dtype=str(dtype) if dtype else None,
        bytes=elements * each if elements and each else None,
        group_size=_count(args.get("Group size")) or None,
        group=group,
        group_name=name,
        sequence=_count(args.get("Seq")),
    )


def _name(text: str) -> str | None:
    plain = text.lower().replace("_", "")
    return next((name for part, name in _NAMES.items() if part in plain), None)


def _element_bytes(dtype: str) -> int | None:
    return 1 if dtype.startswith("Float8") else _BYTES.get(dtype)


def _count(value: Any) -> int | None:
    if isinstance(value, str) and value.isdigit():
        value = int(value)
    valid = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**62
    return value if valid else None
