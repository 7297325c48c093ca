"""Pair the begin and end events of a trace ("B", "E") to complete ones, by nesting.

An end closes the innermost open begin of its thread, in order of time and, at one time, of the
file; an end with a name closes the innermost one of that name. What began inside and is still open
then has no end.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from glassworld.trace.reading.columns import DEVICE_OP, EventTable, Ints, Mask

UNSORTED = np.dtype([*DEVICE_OP.descr, ("category", "<i4"), ("on_stream", "?"), ("step", "?")])
"""An event of any table, with what its process and thread must tell; see `code_by_process`."""

ENDPOINT = np.dtype([*UNSORTED.descr, ("code", "i1"), ("is_end", "?"), ("named", "?")])
"""A begin or an end at `start`; `code` says which table its event belongs to (0: none)."""

Rows = npt.NDArray[np.void]


class BeginEndPairs:
    """The begin and end events of a trace, in a table that spills to disk.

    `begins` and `ends` count those that found no partner; they are complete once `complete` has
    been read to its end.
    """

    def __init__(self) -> None:
        self.begins = self.ends = 0
        self._table = EventTable(ENDPOINT)

    def __len__(self) -> int:
        return len(self._table)

    def add(self, rows: Rows) -> None:
        """Take in endpoints (dtype `ENDPOINT`) in the order of the file."""
        self._table.append(rows)

    def complete(self) -> Iterator[Rows]:
        """Yield the complete events in batches, their durations filled in."""
        still_open = np.empty(0, ENDPOINT)
        for rows in self._table.in_time():
            rows = np.concatenate([still_open, rows])
            begins, ends, left = _pair(rows)
            self.ends += int(rows["is_end"].sum()) - len(ends)
            self.begins += int((~rows["is_end"]).sum()) - len(begins) - len(left)
            yield _joined(rows[begins], rows[ends])
            still_open = rows[left]
        self.begins += len(still_open)


def _pair(rows: Rows) -> tuple[Ints, Ints, Ints]:
    """Return the indices of begins, those of their ends, and those of begins still open."""
    stacks: dict[int, list[tuple[int, int]]] = {}
    pairs: list[tuple[int, int]] = []
    columns = (rows[column].tolist() for column in ("thread", "name", "is_end", "named"))
    for i, (thread, name, is_end, named) in enumerate(zip(*columns, strict=True)):
        stack = stacks.setdefault(thread, [])
        if not is_end:
            stack.append((i, name))
            continue
        at = len(stack) - 1
        while named and at >= 0 and stack[at][1] != name:
            at -= 1
        if at >= 0:
            pairs.append((stack[at][0], i))
            del stack[at:]
    begins, ends = np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2).T
    left = np.array(sorted(i for stack in stacks.values() for i, _ in stack), dtype=np.int64)
    return begins, ends, left


def _joined(begins: Rows, ends: Rows) -> Rows:
    """Return complete events; arguments that the begin lacks are those of the end."""
    joined = begins.copy()
    joined["dur"] = ends["start"] - begins["start"]
    without: Mask = begins["correlation"] < 0
    joined["correlation"][without] = ends["correlation"][without]
    elsewhere: Mask = ~begins["on_stream"] & ends["on_stream"]
    for column in ("stream", "device", "on_stream"):
        joined[column][elsewhere] = ends[column][elsewhere]
    joined["bytes"] = np.maximum(begins["bytes"], ends["bytes"])
    return joined
