"""Read the JSON that ROCm's `rocprofv3 --output-format json` writes.

Its schema is documented with rocprofiler-sdk: one entry per process, whose `buffer_records` hold
the kernels, copies, calls and ROCTx ranges. Times are nanoseconds. ROCTx ranges become tags.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from glassworld.trace.reading.event_source import EventSource, gpu_row, range_event
from glassworld.trace.reading.events import Event, EventArgs

_KEY = b'"rocprofiler-sdk-tool"'
_HEAD_BYTES = 4096
_GPU = 2  # `type` of an agent
_CORRELATION_BITS = 40  # ids count from 1 in every process
_NO_RANGES = ("MARKER_CONTROL_API", "MARKER_NAME_API")
"""Kinds of calls of ROCTx that pause the profiler, or name a thread or a device."""

_DIRECTIONS = {
    "HOST_TO_DEVICE": "HtoD",
    "DEVICE_TO_HOST": "DtoH",
    "DEVICE_TO_DEVICE": "DtoD",
    "HOST_TO_HOST": "HtoH",
}


class _Handle(msgspec.Struct, gc=False, frozen=True):
    handle: int = 0


class _Correlation(msgspec.Struct, gc=False, frozen=True):
    internal: int = 0


class _Dispatch(msgspec.Struct, gc=False, frozen=True):
    kernel_id: int = 0
    agent_id: _Handle = _Handle()
    queue_id: _Handle = _Handle()


class _Record(msgspec.Struct, gc=False, frozen=True):
    """A call, kernel, copy or range; an operation is numbered within its kind."""

    start_timestamp: int
    end_timestamp: int
    kind: int = -1
    operation: int = -1
    thread_id: int = 0
    correlation_id: _Correlation = _Correlation()
    dispatch_info: _Dispatch = _Dispatch()
    stream_id: _Handle | None = None
    src_agent_id: _Handle = _Handle()
    dst_agent_id: _Handle = _Handle()
    bytes: int | None = None


class _Records(msgspec.Struct):
    kernel_dispatch: list[_Record] = []
    memory_copy: list[_Record] = []
    hip_api: list[_Record] = []
    hsa_api: list[_Record] = []
    rccl_api: list[_Record] = []
    marker_api: list[_Record] = []


class _Kind(msgspec.Struct):
    kind: str = ""
    operations: list[str] = []


class _Marker(msgspec.Struct):
    key: int
    value: str


class _Strings(msgspec.Struct):
    buffer_records: list[_Kind] = []
    marker_api: list[_Marker] = []


class _Agent(msgspec.Struct):
    id: _Handle = _Handle()
    type: Any = 0
    name: str = ""
    product_name: str = ""
    cu_count: int = 0


class _Symbol(msgspec.Struct):
    kernel_id: int = 0
    formatted_kernel_name: str = ""
    kernel_name: str = ""


class _Metadata(msgspec.Struct, frozen=True):
    pid: int = 0


class _Process(msgspec.Struct):
    buffer_records: dict[str, msgspec.Raw]
    metadata: _Metadata = _Metadata()
    agents: list[_Agent] = []
    strings: _Strings = msgspec.field(default_factory=_Strings)
    kernel_symbols: list[_Symbol] = []


class _Document(msgspec.Struct):
    processes: list[_Process] | _Process = msgspec.field(name="rocprofiler-sdk-tool")


def _records(process: _Process) -> _Records:
    groups = process.buffer_records
    return _Records(
        **{
            name: msgspec.json.decode(groups[name], type=list[_Record])
            for name in _Records.__struct_fields__
            if name in groups
        }
    )


def is_rocprof(start: bytes) -> bool:
    """Return whether a file begins like rocprofv3's JSON."""
    head = start[:_HEAD_BYTES].lstrip()
    return head.startswith(b"{") and head[1:].lstrip().startswith(_KEY)


class RocprofEvents(EventSource):
    """Reads the events of rocprofv3's JSON, which it holds in memory."""

    def events(self) -> Iterator[list[Event]]:
        """Yield the events of every process. Raises `TraceError` if the file is damaged."""
        text = self.read_all()
        try:
            found = msgspec.json.decode(text, type=_Document).processes
            processes = found if isinstance(found, list) else [found]
            records = [_records(process) for process in processes]
        except msgspec.ValidationError as error:
            raise self.refuse(
                f"rocprofv3 JSON of a version that is not known: {error}; "
                "record it with another version of rocprofv3"
            ) from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self.refuse(
                f"rocprofv3 JSON, cut short or damaged: {error}; record it again"
            ) from error
        devices: dict[int, _Agent] = {}
        self._say_unread(processes)
        for number, (process, of) in enumerate(zip(processes, records, strict=True)):
            reader = _ProcessReader(process, of, number)
            devices |= dict(enumerate(reader.gpus))
            yield from reader.events()
        self.metadata["deviceProperties"] = [
            {"id": i, "name": gpu.product_name or gpu.name, "numSms": gpu.cu_count}
            for i, gpu in devices.items()
        ]

    def _say_unread(self, processes: list[_Process]) -> None:
        """Name the groups of records that are not read, such as those of a later version."""
        unread = {
            name
            for process in processes
            for name, records in process.buffer_records.items()
            if name not in _Records.__struct_fields__ and bytes(records).strip(b"[ \t\r\n]")
        }
        if unread:
            self.losses.append(f"these records are not read: {', '.join(sorted(unread))}")


class _ProcessReader:
    """Translates the records of one process."""

    def __init__(self, process: _Process, records: _Records, number: int) -> None:
        self._process, self._records = process, records
        self._number = number
        self._first_correlation = number << _CORRELATION_BITS
        self._kinds = process.strings.buffer_records
        self._markers = {marker.key: marker.value for marker in process.strings.marker_api}
        self._kernels = {
            symbol.kernel_id: symbol.formatted_kernel_name or symbol.kernel_name
            for symbol in process.kernel_symbols
        }
        self.gpus = [agent for agent in process.agents if agent.type in (_GPU, "GPU")]
        self._devices = {gpu.id.handle: i for i, gpu in enumerate(self.gpus)}
        self._streams: dict[tuple[str, int], int] = {}

    def events(self) -> Iterator[list[Event]]:
        """Yield the events, a list per kind of records."""
        records = self._records
        translations: tuple[tuple[list[_Record], Callable[[_Record], Event | None]], ...] = (
            (records.marker_api, self._marker),
            (records.rccl_api, lambda r: self._host(r, "cpu_op", self._operation(r))),
            (self._calls(), lambda r: self._host(r, "hip_runtime", self._operation(r))),
            (records.kernel_dispatch, self._kernel),
            (records.memory_copy, self._copy),
        )
        for group, translate in translations:
            yield [event for record in group if (event := translate(record))]

    def _calls(self) -> list[_Record]:
        """Return the calls of HIP, and those of HSA that launched work which no call of HIP did.

        HIP makes most of the calls of HSA. If both are traced, GPU work may name either.
        """
        records = self._records
        if not records.hip_api:
            return records.hsa_api
        launching = {r.correlation_id.internal for r in records.kernel_dispatch}
        launching |= {r.correlation_id.internal for r in records.memory_copy}
        launching -= {r.correlation_id.internal for r in records.hip_api}
        by_hsa = [r for r in records.hsa_api if r.correlation_id.internal in launching]
        return records.hip_api + by_hsa

    def _operation(self, record: _Record) -> str:
        if 0 <= record.kind < len(self._kinds):
            operations = self._kinds[record.kind].operations
            if 0 <= record.operation < len(operations):
                return operations[record.operation]
        return f"operation {record.kind}.{record.operation}"

    def _marker(self, record: _Record) -> Event | None:
        """Return a range as a tag; None for a mark, which takes no time, and for other calls."""
        if 0 <= record.kind < len(self._kinds) and self._kinds[record.kind].kind in _NO_RANGES:
            return None
        name = self._markers.get(record.correlation_id.internal) or self._operation(record)
        if record.start_timestamp == record.end_timestamp:
            return None
        return self._host(record, "user_annotation", name)

    def _host(self, record: _Record, category: str, name: str) -> Event:
        thread = (self._process.metadata.pid, record.thread_id)
        args = EventArgs(correlation=self._correlation(record))
        return range_event(
            category, name, thread, record.start_timestamp, record.end_timestamp, args
        )

    def _kernel(self, record: _Record) -> Event:
        dispatch = record.dispatch_info
        name = self._kernels.get(dispatch.kernel_id) or f"kernel {dispatch.kernel_id}"
        device = self._devices.get(dispatch.agent_id.handle, 0)
        return self._device_op(record, "kernel", name, device, dispatch.queue_id)

    def _copy(self, record: _Record) -> Event:
        operation = self._operation(record)
        direction = re.sub(r"^MEMORY_COPY_", "", operation)
        ends = (record.dst_agent_id.handle, record.src_agent_id.handle)
        device = next((self._devices[end] for end in ends if end in self._devices), 0)
        name = f"Memcpy {_DIRECTIONS.get(direction, operation)}"
        return self._device_op(record, "gpu_memcpy", name, device, None)

    def _device_op(
        self, record: _Record, category: str, name: str, device: int, queue: _Handle | None
    ) -> Event:
        lane = ("stream", record.stream_id.handle) if record.stream_id else ("queue", 0)
        if not record.stream_id and queue:
            lane = ("queue", queue.handle)
        stream = self._streams.setdefault(lane, len(self._streams))
        args = EventArgs(
            correlation=self._correlation(record), stream=stream, device=device, bytes=record.bytes
        )
        start, end = record.start_timestamp, record.end_timestamp
        row = gpu_row(device, self._process.metadata.pid, self._number)
        return range_event(category, name, (row, stream), start, end, args)

    def _correlation(self, record: _Record) -> int | None:
        internal = record.correlation_id.internal
        return self._first_correlation + internal if internal else None
