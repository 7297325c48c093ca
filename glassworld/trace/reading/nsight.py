"""Read the SQLite export of NVIDIA Nsight Systems (`nsys export --type sqlite`).

The schema is documented in the user guide of Nsight Systems. Times are nanoseconds from the start
of the session. NVTX ranges become tags, but those of `torch.autograd.profiler.emit_nvtx` are
operators.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import islice

from glassworld.trace.reading.event_source import EventSource, gpu_row, range_event
from glassworld.trace.reading.events import Event, EventArgs

MAGIC = b"SQLite format 3\x00"
_HEAD_BYTES = 100
_KNOWN_SCHEMA = 3  # the major version of the newest known `EXPORT_SCHEMA_VERSION`
_ROWS_AT_ONCE = 1 << 14
_RANGE_TYPES = (59, 60, 70, 71)  # NVTX ranges on one thread and on any two; imported ones
_TID_BITS = 24
_CORRELATION_BITS = 32  # ids count from 1 in every process
_API_VERSION = re.compile(r"(?:_ptds|_ptsz)?_v\d+$")  # the first: a default stream per thread
_SUFFIX = re.compile(r", (?:seq|op_id|sizes) ?= ?.*$")
_OPERATOR = re.compile(r"(?:aten|prim|c10d?|torchvision)::|.*, seq = ")
_COPY_KINDS = dict[object, str](
    enumerate(
        ("HtoD", "DtoH", "HtoA", "AtoH", "AtoA", "AtoD", "DtoA", "DtoD", "HtoH", "PtoP"), start=1
    )
)
"""CUPTI's kinds of copies, in the words of torch's profiler; nsys adds those of managed memory."""

_KERNEL, _GRAPH, _COPY, _FILL, _CALL, _SYNC = (
    f"CUPTI_ACTIVITY_KIND_{kind}"
    for kind in ("KERNEL", "GRAPH_TRACE", "MEMCPY", "MEMSET", "RUNTIME", "SYNCHRONIZATION")
)
_STREAM_SYNC = 3  # `syncType` of a wait for a stream; an event's row does not say what recorded it
_RANGE = "NVTX_EVENTS"
_ON_STREAM = ("start", "end", "deviceId", "streamId", "correlationId")
_COLUMNS = {
    _RANGE: ("start", "end", "eventType", "globalTid"),
    _CALL: ("start", "end", "globalTid", "correlationId", "nameId"),
    _KERNEL: (*_ON_STREAM, "demangledName"),
    _GRAPH: (*_ON_STREAM, "graphId"),
    _COPY: (*_ON_STREAM, "bytes", "copyKind"),
    _FILL: (*_ON_STREAM, "bytes"),
    _SYNC: ("start", "end", "syncType"),
}
"""The tables that hold events, with the columns that the reader needs."""

_OPTIONAL = {
    _RANGE: ("text", "textId", "endGlobalTid"),
    _KERNEL: ("globalPid",),
    _GRAPH: ("globalPid",),
    _COPY: ("globalPid", "srcKind", "dstKind"),
    _FILL: ("globalPid",),
    _SYNC: ("deviceId", "streamId", "correlationId", "globalPid"),
}
"""Further columns, which some versions lack: they are read as NULL there."""

_DEVICE = {"id": "id", "name": "name", "totalMemory": "totalGlobalMem", "smCount": "numSms"}
"""Columns of TARGET_INFO_GPU by the names that torch's profiler gives them."""


def is_sqlite(start: bytes) -> bool:
    """Return whether a file begins like an SQLite database."""
    return start.startswith(MAGIC)


def _database_bytes(head: bytes) -> int:
    """Return the size of a database by its first 100 bytes; 0 if they do not tell it.

    https://www.sqlite.org/fileformat.html: the number of pages is valid if two counters agree.
    """
    if len(head) < _HEAD_BYTES or head[24:28] != head[92:96]:
        return 0
    page = int.from_bytes(head[16:18], "big")
    return int.from_bytes(head[28:32], "big") * (1 << 16 if page == 1 else page)


class NsightEvents(EventSource):
    """Reads the events of an Nsight Systems database, table by table."""

    def events(self) -> Iterator[list[Event]]:
        """Yield the events of every table. Raises `TraceError` if it is no such database."""
        path = self.source.path
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
        if not is_sqlite(head):
            raise self.refuse("is a compressed database; decompress it")
        missing = _database_bytes(head) - path.stat().st_size
        if missing > 0:  # SQLite reads zeros in the place of the end of a page
            self.losses.append(f"the database is cut short: its last {missing} bytes are lost")
        uri = f"{path.resolve().as_uri()}?mode=ro&immutable=1"
        try:
            with closing(sqlite3.connect(uri, uri=True)) as database:
                database.text_factory = lambda raw: raw.decode("utf-8", "replace")
                yield from _Tables(database, self).events()
        except sqlite3.Error as error:
            raise self.refuse(f"a damaged SQLite database: {error}; export it again") from error
        self.source.bytes_read = path.stat().st_size


class _Tables:
    """The tables of one database."""

    def __init__(self, database: sqlite3.Connection, reader: NsightEvents) -> None:
        self._database = database
        self._reader = reader
        names = database.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")
        self._tables = {str(name) for (name,) in names}
        self._processes: dict[int, int] = {}
        self._gpu_processes: dict[int, int] = {}
        self._strings: dict[object, str] = {}
        self._memory: dict[object, str] = {}
        self._copies: dict[object, str] = {}
        self._skipped = 0

    def events(self) -> Iterator[list[Event]]:
        """Yield the events of all tables."""
        present = {kind: table for kind in _COLUMNS if (table := self._find(kind))}
        if not present:
            raise self._reader.refuse(self._what_it_is())
        for kind, table in present.items():
            self._check(kind, table)
        version = self._schema_version()
        if (major := re.match(r"\d+", version)) and int(major[0]) > _KNOWN_SCHEMA:
            self._reader.losses.append(
                f"the database has schema {version}, which is later than the known ones: what is "
                "new in it is not read"
            )
        self._strings = self._pairs("StringIds", "id", "value")
        self._memory = self._pairs("ENUM_CUDA_MEM_KIND", "id", "label")
        self._copies = self._pairs("ENUM_CUDA_MEMCPY_OPER", "id", "label") | _COPY_KINDS
        self._reader.metadata |= self._metadata()
        for kind, table in present.items():
            yield from self._table(kind, table)
        if self._skipped:
            self._reader.losses.append(
                f"{self._skipped} NVTX ranges that never end, or end on another thread, "
                "were left out"
            )

    def _find(self, kind: str) -> str | None:
        """Return the name of a table; without the plain name, that of its latest version."""
        if kind in self._tables:
            return kind
        named = [re.fullmatch(rf"{kind}_V(\d+)", table) for table in self._tables]
        return max(((int(name[1]), name[0]) for name in named if name), default=(0, None))[1]

    def _what_it_is(self) -> str:
        """Say what a database without any table of events is, and what to do."""
        if any(table.startswith("rocpd_") for table in self._tables):
            return (
                "a rocpd database of rocprofv3, which is not read; record again with: "
                "rocprofv3 --output-format json (or pftrace)"
            )
        if "META_DATA_EXPORT" in self._tables:
            return (
                "a database of Nsight Systems without NVTX ranges and CUDA work; record again "
                "with: nsys profile --trace=cuda,nvtx"
            )
        return (
            f"an SQLite database without tables of Nsight Systems ({', '.join(_COLUMNS)}); "
            "export one with: nsys export --type sqlite"
        )

    def _check(self, kind: str, table: str) -> None:
        """Raise `TraceError` if a table lacks a column, as one of a later version may."""
        missing = [c for c in _COLUMNS[kind] if c not in self._columns_of(table)]
        if missing:
            version = self._schema_version()
            of = f" of schema {version}" if version else ""
            raise self._reader.refuse(
                f"a database of Nsight Systems{of} whose {table} has no {', '.join(missing)}; "
                "export it with another version of nsys"
            )

    def _schema_version(self) -> str:
        """Return the version of the tables, such as 3.11.0; "" if the file does not tell it."""
        described = self._pairs("META_DATA_EXPORT", "name", "value")
        return described.get("EXPORT_SCHEMA_VERSION", "")

    def _columns_of(self, table: str) -> set[str]:
        return {str(row[1]) for row in self._database.execute(f"PRAGMA table_info({table})")}

    def _pairs(self, table: str, key: str, value: str) -> dict[object, str]:
        """Return two columns of a table as a dictionary; empty where there is no such table."""
        if not {key, value} <= self._columns_of(table):
            return {}
        columns = f"{key}, CAST({value} AS TEXT)"
        where = f"{value} IS NOT NULL"
        return dict(self._database.execute(f"SELECT {columns} FROM {table} WHERE {where}"))

    def _metadata(self) -> dict[str, object]:
        columns = [c for c in _DEVICE if c in self._columns_of("TARGET_INFO_GPU")]
        if "id" not in columns:
            return {}
        rows = self._database.execute(f"SELECT {', '.join(columns)} FROM TARGET_INFO_GPU")
        names = [_DEVICE[column] for column in columns]
        return {"deviceProperties": [dict(zip(names, row, strict=True)) for row in rows]}

    def _table(self, kind: str, table: str) -> Iterator[list[Event]]:
        """Yield the events of one table, up to where the file is damaged."""
        present = self._columns_of(table)
        wanted = (*_COLUMNS[kind], *_OPTIONAL.get(kind, ()))
        columns = ", ".join(_selected(c, present) for c in wanted)
        order = ' ORDER BY start, "end" DESC' if kind == _RANGE else ""  # outer ranges first
        try:
            self._database.row_factory = sqlite3.Row
            rows = self._database.execute(f"SELECT {columns} FROM {table}{order}")
            while batch := list(islice(rows, _ROWS_AT_ONCE)):
                if kind == _RANGE:
                    events = [self._range(row) for row in batch]
                elif kind == _CALL:
                    events = [self._call(row) for row in batch]
                elif kind == _SYNC:
                    events = [self._wait(row) for row in batch if row["syncType"] == _STREAM_SYNC]
                else:
                    events = [self._device_op(kind, row) for row in batch]
                yield [event for event in events if event is not None]
        except sqlite3.DatabaseError as error:
            self._reader.losses.append(f"the database is damaged ({error}): {table} is incomplete")
        finally:
            self._database.row_factory = None

    def _range(self, row: sqlite3.Row) -> Event | None:
        if row["eventType"] not in _RANGE_TYPES:
            return None
        elsewhere = row["endGlobalTid"] not in (None, 0, row["globalTid"])
        if row["end"] is None or row["start"] is None or elsewhere:
            self._skipped += 1
            return None
        text = row["text"] if row["text"] is not None else self._strings.get(row["textId"], "")
        category = "cpu_op" if _OPERATOR.match(text) else "user_annotation"
        name = _SUFFIX.sub("", text)
        return range_event(category, name, _thread(row["globalTid"]), row["start"], row["end"])

    def _call(self, row: sqlite3.Row) -> Event:
        name = _API_VERSION.sub("", self._strings.get(row["nameId"], f"call {row['nameId']}"))
        args = EventArgs(correlation=self._correlation(row["globalTid"], row["correlationId"]))
        thread = _thread(row["globalTid"])
        return range_event("cuda_runtime", name, thread, row["start"] or 0, row["end"] or 0, args)

    def _wait(self, row: sqlite3.Row) -> Event:
        """Return a call's wait for a stream, as torch records it."""
        args = EventArgs(
            correlation=self._correlation(row["globalPid"], row["correlationId"]),
            stream=row["streamId"],
            device=row["deviceId"],
        )
        thread = (row["deviceId"], row["streamId"])
        start, end = row["start"] or 0, row["end"] or 0
        return range_event("cuda_sync", "Stream Sync", thread, start, end, args)

    def _device_op(self, kind: str, row: sqlite3.Row) -> Event:
        args = EventArgs(
            correlation=self._correlation(row["globalPid"], row["correlationId"]),
            stream=row["streamId"],
            device=row["deviceId"],
            bytes=row["bytes"] if kind in (_COPY, _FILL) else None,
        )
        category, name = "kernel", ""
        if kind == _KERNEL:
            name = self._strings.get(row["demangledName"], f"kernel {row['demangledName']}")
        elif kind == _GRAPH:
            name = f"CUDA graph {row['graphId']}"
        elif kind == _FILL:
            category, name = "gpu_memset", "Memset (Device)"
        else:
            direction = self._copies.get(row["copyKind"], "")
            category, name = "gpu_memcpy", f"Memcpy {direction}".rstrip()
            ends = [self._memory.get(row[column]) for column in ("srcKind", "dstKind")]
            if known := [end for end in ends if end]:
                name += f" ({' -> '.join(known)})"
        pid, _ = _thread(row["globalPid"])
        order = self._gpu_processes.setdefault(pid, len(self._gpu_processes))
        thread = (gpu_row(row["deviceId"], pid, order), row["streamId"])
        return range_event(category, name, thread, row["start"] or 0, row["end"] or 0, args)

    def _correlation(self, global_id: int | None, correlation: int | None) -> int | None:
        """Return an id that is unique over processes, whose numbers are the upper bits.

        Without one it is the only process that made calls; of several, nothing tells which.
        """
        if not correlation or (global_id is None and len(self._processes) > 1):
            return None
        process = 0
        if global_id is not None:
            process = self._processes.setdefault(global_id >> _TID_BITS, len(self._processes))
        return (process << _CORRELATION_BITS) + correlation


def _selected(column: str, present: set[str]) -> str:
    """Return the SQL of a column: NULL if the table lacks it.

    SQLite stores values of any type in any column; they are converted to the one documented.
    """
    kind = "TEXT" if column == "text" else "INTEGER"
    value = f'CAST("{column}" AS {kind})' if column in present else "NULL"
    return f'{value} AS "{column}"'


def _thread(global_tid: int | None) -> tuple[int, int]:
    """Return the process and thread of Nsight's global thread id; zeros for none."""
    global_tid = global_tid or 0
    return global_tid >> _TID_BITS & 0xFFFFFF, global_tid & 0xFFFFFF
