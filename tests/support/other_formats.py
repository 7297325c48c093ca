"""One run of a program on a GPU, as every profiler that the reader knows would have written it."""

import json
import sqlite3
import zlib
from pathlib import Path
from typing import Any

from tests.support.traces import GpuTrace, analysis_json, near

PID, TID = 77, 4711
GLOBAL_TID = 0x0100_0000_0000_0000 | PID << 24 | TID


class TrainingRun(GpuTrace):
    """Three steps with nested tags, operators, kernels, a copy, a fill and an idle pause."""

    def __init__(self, base=1_000_000.125):
        super().__init__()
        self.base = base
        for step in range(3):
            with self.tag(f"step_{step}"):
                with self.tag("forward"), self.op_range("aten::linear"):
                    self.launch("void gemm<128, 64>(float*)", 40.5 + step)
                    self.launch("relu", 10.25)
                with self.tag("copy"):
                    self.launch("Memcpy HtoD (Pageable -> Device)", 30, "gpu_memcpy")
                    self.launch("Memset (Device)", 5.5, "gpu_memset")
                self.call("cudaStreamSynchronize", 120)
                self.wait(50)
        for event in self.events:
            if event["pid"] == 1:
                event |= {"pid": PID, "tid": TID}


RUN = TrainingRun().events


def nanoseconds(event):
    """Return the start and the end of an event."""
    start = round(event["ts"] * 1000)
    return start, start + round(event["dur"] * 1000)


def figures(analysis):
    """Return all figures of an analysis, whatever the order of events in its file."""
    written = analysis_json(analysis)
    for holder in (written, *written["tags"]):
        holder["instances_detail"].sort(key=lambda i: (i["start_ms"], -i["cpu_ms"], i["name"]))
    written["tags"].sort(key=lambda tag: tag["path"])
    for key in ("trace", "events", "notes", "losses"):
        del written[key]
    return near(written)


NSIGHT_SCHEMA = """
CREATE TABLE StringIds (id INTEGER NOT NULL PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE META_DATA_EXPORT (name TEXT, value TEXT);
CREATE TABLE TARGET_INFO_GPU (vmId INTEGER, id INTEGER, name TEXT, totalMemory INTEGER,
    smCount INTEGER);
CREATE TABLE ENUM_CUDA_MEM_KIND (id INTEGER PRIMARY KEY, name TEXT, label TEXT);
CREATE TABLE NVTX_EVENTS (start INTEGER NOT NULL, end INTEGER, eventType INTEGER NOT NULL,
    rangeId INTEGER, category INTEGER, color INTEGER, text TEXT, globalTid INTEGER,
    endGlobalTid INTEGER, textId INTEGER, domainId INTEGER);
CREATE TABLE CUPTI_ACTIVITY_KIND_RUNTIME (start INTEGER NOT NULL, end INTEGER NOT NULL,
    eventClass INTEGER NOT NULL, globalTid INTEGER, correlationId INTEGER,
    nameId INTEGER NOT NULL, returnValue INTEGER NOT NULL, callchainId INTEGER);
CREATE TABLE CUPTI_ACTIVITY_KIND_KERNEL (start INTEGER NOT NULL, end INTEGER NOT NULL,
    deviceId INTEGER NOT NULL, contextId INTEGER NOT NULL, streamId INTEGER NOT NULL,
    correlationId INTEGER, globalPid INTEGER, demangledName INTEGER NOT NULL,
    shortName INTEGER NOT NULL, graphNodeId INTEGER);
CREATE TABLE CUPTI_ACTIVITY_KIND_MEMCPY (start INTEGER NOT NULL, end INTEGER NOT NULL,
    deviceId INTEGER NOT NULL, contextId INTEGER NOT NULL, streamId INTEGER NOT NULL,
    correlationId INTEGER, globalPid INTEGER, bytes INTEGER NOT NULL, copyKind INTEGER NOT NULL,
    srcKind INTEGER, dstKind INTEGER);
CREATE TABLE CUPTI_ACTIVITY_KIND_MEMSET (start INTEGER NOT NULL, end INTEGER NOT NULL,
    deviceId INTEGER NOT NULL, contextId INTEGER NOT NULL, streamId INTEGER NOT NULL,
    correlationId INTEGER, globalPid INTEGER, value INTEGER NOT NULL, bytes INTEGER NOT NULL,
    memKind INTEGER);
INSERT INTO META_DATA_EXPORT VALUES ('EXPORT_SCHEMA_VERSION', '3.11.0');
INSERT INTO TARGET_INFO_GPU VALUES (0, 0, 'NVIDIA H100', 85899345920, 132);
INSERT INTO ENUM_CUDA_MEM_KIND VALUES (0, 'PAGEABLE', 'Pageable'), (2, 'DEVICE', 'Device');
"""
"""The tables of `nsys export --type sqlite` that the reader uses, by their documented schema."""


def write_nsight(path: Path, events=RUN):
    """Write the events as Nsight Systems exports them."""
    path.unlink(missing_ok=True)
    database = sqlite3.connect(path)
    database.executescript(NSIGHT_SCHEMA)
    strings: dict[str, int] = {}

    def text(value):
        return strings.setdefault(value, len(strings) + 1)

    for event in events:
        start, end = nanoseconds(event)
        args, name, category = event["args"], event["name"], event["cat"]
        row: tuple[Any, ...]
        on_stream = (start, end, 0, 1, args.get("stream"), args.get("correlation"))
        if category == "user_annotation":  # with a registered string
            row = (start, end, 59, None, None, None, None, GLOBAL_TID, None, text(name), 0)
            table = "NVTX_EVENTS"
        elif category == "cpu_op":
            marked = f"{name}, op_id = 7"
            row = (start, end, 59, None, None, None, marked, GLOBAL_TID, None, None, 0)
            table = "NVTX_EVENTS"
        elif category == "cuda_runtime":
            call = text(f"{name}_v7000")
            row = (start, end, 0, GLOBAL_TID, args.get("correlation") or 0, call, 0, None)
            table = "CUPTI_ACTIVITY_KIND_RUNTIME"
        elif category == "kernel":
            row = (*on_stream, GLOBAL_TID - TID, text(name), text("short"), None)
            table = "CUPTI_ACTIVITY_KIND_KERNEL"
        elif category == "gpu_memcpy":
            row = (*on_stream, GLOBAL_TID - TID, 1 << 20, 1, 0, 2)
            table = "CUPTI_ACTIVITY_KIND_MEMCPY"
        else:
            row = (*on_stream, GLOBAL_TID - TID, 0, 1 << 10, 2)
            table = "CUPTI_ACTIVITY_KIND_MEMSET"
        database.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)
    database.executemany(
        "INSERT INTO StringIds VALUES (?, ?)", [(i, s) for s, i in strings.items()]
    )
    database.commit()
    database.close()
    return path


ROCM_NAMES = {
    "Memcpy HtoD (Pageable -> Device)": "Memcpy HtoD",
    "Memset (Device)": "__amd_rocclr_fillBufferAligned",
    "cudaLaunchKernel": "hipLaunchKernel",
    "cudaStreamSynchronize": "hipStreamSynchronize",
}
ROCM_RUN = [
    event
    | {"name": ROCM_NAMES.get(event["name"], event["name"])}
    | ({"cat": "kernel"} if event["cat"] == "gpu_memset" else {})
    for event in RUN
    if event["cat"] != "cpu_op"
]
"""The run with the names of AMD's runtime, which fills memory with a kernel, and no operators."""

_KINDS = {
    "HIP_RUNTIME_API": ["hipLaunchKernel", "hipStreamSynchronize"],
    "MEMORY_COPY": ["MEMORY_COPY_NONE", "MEMORY_COPY_HOST_TO_DEVICE"],
    "KERNEL_DISPATCH": ["KERNEL_DISPATCH_COMPLETE"],
    "MARKER_CORE_RANGE_API": ["roctxThreadRangeA"],
}


def rocprof_document(events=ROCM_RUN):
    """Return what `rocprofv3 --output-format json` writes of the events."""
    groups: dict[str, list[Any]] = {
        "hip_api": [],
        "memory_copy": [],
        "kernel_dispatch": [],
        "marker_api": [],
    }
    symbols: dict[str, int] = {}
    markers = []
    for number, event in enumerate(events):
        start, end = nanoseconds(event)
        name, correlation = event["name"], event["args"].get("correlation", 1_000 + number)
        group = {"user_annotation": "marker_api", "cuda_runtime": "hip_api"} | {
            "kernel": "kernel_dispatch",
            "gpu_memcpy": "memory_copy",
        }
        at = list(groups).index(group[event["cat"]])
        record = {
            "size": 64,
            "kind": at,
            "operation": 0,
            "thread_id": TID,
            "start_timestamp": start,
        }
        record |= {"end_timestamp": end, "correlation_id": {"internal": correlation, "external": 0}}
        if event["cat"] == "user_annotation":
            markers.append({"key": correlation, "value": name})
        elif event["cat"] == "cuda_runtime":
            record["operation"] = _KINDS["HIP_RUNTIME_API"].index(name)
        elif event["cat"] == "gpu_memcpy":
            record |= {"operation": 1, "bytes": 1 << 20, "stream_id": {"handle": 7}}
            record |= {"src_agent_id": {"handle": 11}, "dst_agent_id": {"handle": 12}}
        else:
            dispatch: dict[str, Any] = {"kernel_id": symbols.setdefault(name, len(symbols) + 1)}
            dispatch |= {"agent_id": {"handle": 12}, "queue_id": {"handle": 2**40}}
            record |= {"dispatch_info": dispatch, "stream_id": {"handle": 7}}
        groups[list(groups)[at]].append(record)
    process = {
        "metadata": {"pid": PID, "init_time": 1, "fini_time": 2},
        "agents": [
            {"id": {"handle": 11}, "type": 1, "name": "AMD EPYC"},
            {"id": {"handle": 12}, "type": 2, "name": "gfx942", "cu_count": 304},
        ],
        "strings": {
            "buffer_records": [{"kind": k, "operations": o} for k, o in _KINDS.items()],
            "marker_api": markers,
        },
        "kernel_symbols": [
            {"kernel_id": number, "formatted_kernel_name": name} for name, number in symbols.items()
        ],
        "buffer_records": groups,
    }
    return {"rocprofiler-sdk-tool": [process]}


def write_rocprof(path: Path, events=ROCM_RUN):
    """Write the events as rocprofv3 does."""
    path.write_text(json.dumps(rocprof_document(events)), encoding="utf-8")
    return path


XLA_RUN = [
    event | ({"cat": "cuda_driver"} if event["cat"] == "cuda_runtime" else {})
    for event in RUN
    if event["cat"] != "user_annotation" or event["name"].startswith("step_")
]
"""The run without its inner tags: XLA knows steps only."""


def write_xplane(path: Path, events=XLA_RUN):
    """Write the events as XLA's profiler does: a plane for the host and one for the device."""
    from tests.support.protos import XPLANE

    space = XPLANE["XSpace"]()
    host, device = space.planes.add(id=1, name="/host:CPU"), space.planes.add(id=2)
    device.name = "/device:GPU:0"
    start_ns = min(nanoseconds(event)[0] for event in events)
    lines = {
        False: host.lines.add(id=TID, name="python", timestamp_ns=start_ns),
        True: device.lines.add(id=7, name="Stream #7(Compute)", timestamp_ns=start_ns),
    }
    repeated = device.lines.add(id=100, name="XLA Ops", timestamp_ns=start_ns)
    for plane in (host, device):
        for number, name in enumerate(("correlation_id", "step_num"), 1):
            plane.stat_metadata.add(key=number).value.name = name
    known: dict[tuple[bool, str], int] = {}
    for event in events:
        start, end = nanoseconds(event)
        on_device = event["pid"] == 0
        name, _, step = event["name"].rpartition("_") if "step_" in event["name"] else ("", "", "")
        key = (on_device, name or event["name"])
        if key not in known:
            known[key] = len(known) + 1
            entry = (device if on_device else host).event_metadata.add(key=known[key])
            entry.value.name = key[1]
        for line in (lines[on_device], *((repeated,) if on_device else ())):
            added = line.events.add(metadata_id=known[key])
            added.offset_ps, added.duration_ps = (start - start_ns) * 1000, (end - start) * 1000
            if step:
                added.stats.add(metadata_id=2, int64_value=int(step))
            if "correlation" in event["args"]:
                added.stats.add(metadata_id=1, uint64_value=event["args"]["correlation"])
    path.write_bytes(space.SerializeToString())
    return path


_CATEGORIES = ["user_annotation", "cpu_op", "cuda_runtime", "kernel", "gpu_memcpy", "gpu_memset"]


def write_track_events(path: Path, events=RUN, incremental_clock=False, compressed=False):
    """Write the events as a program with Perfetto's SDK does: interned names, begins and ends."""
    from tests.support.protos import PERFETTO

    trace = PERFETTO["Trace"]()
    track = trace.packet.add(trusted_packet_sequence_id=1).track_descriptor
    track.uuid, track.thread.pid, track.thread.tid = 10, PID, TID
    track = trace.packet.add(trusted_packet_sequence_id=1).track_descriptor
    track.uuid, track.name = 20, "COMPUTE AGENT [0] QUEUE [7]"
    names: dict[str, int] = {}
    moments = []
    for order, event in enumerate(events):
        start, end = nanoseconds(event)
        moments += [(start, 1, -end, order, event), (end, 0, -start, -order, event)]
    first = min(moment[0] for moment in moments)
    begun = trace.packet.add(trusted_packet_sequence_id=1, sequence_flags=1)
    for number, category in enumerate(_CATEGORIES, 1):
        begun.interned_data.event_categories.add(iid=number, name=category)
    begun.interned_data.debug_annotation_names.add(iid=1, name="correlation")
    if incremental_clock:
        begun.trace_packet_defaults.timestamp_clock_id = 64
        begun.clock_snapshot.clocks.add(clock_id=6, timestamp=first)
        begun.clock_snapshot.clocks.add(clock_id=64, timestamp=0, is_incremental=True)
    now = first
    for at, begins, _, _, event in sorted(moments, key=lambda moment: moment[:4]):
        packet = trace.packet.add(trusted_packet_sequence_id=1)
        packet.timestamp = at - now if incremental_clock else at
        now = at
        slice_event = packet.track_event
        slice_event.track_uuid = 20 if event["pid"] == 0 else 10
        slice_event.type = 1 if begins else 2
        if not begins:
            continue
        if event["name"] not in names:
            names[event["name"]] = len(names) + 1
            packet.interned_data.event_names.add(iid=names[event["name"]], name=event["name"])
        slice_event.name_iid = names[event["name"]]
        slice_event.category_iids.append(_CATEGORIES.index(event["cat"]) + 1)
        if "correlation" in event["args"]:
            slice_event.debug_annotations.add(name_iid=1, uint_value=event["args"]["correlation"])
        if "stream" in event["args"]:
            slice_event.debug_annotations.add(name="stream", int_value=event["args"]["stream"])
    content = trace.SerializeToString()
    if compressed:
        content = PERFETTO["Trace"](
            packet=[PERFETTO["TracePacket"](compressed_packets=zlib.compress(content))]
        ).SerializeToString()
    path.write_bytes(content)
    return path
