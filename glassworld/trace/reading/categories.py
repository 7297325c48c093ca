"""Tell what an event is from its category, or from the process and thread that it ran on."""

from __future__ import annotations

import re
from typing import Any

from glassworld.trace.reading.columns import (
    COLLECTIVE,
    COPY,
    DEVICE_SYNC,
    EVENT_SYNC,
    FILL,
    KERNEL,
    STREAM_SYNC,
    STREAM_WAIT_EVENT,
)

TAG, OP, PYTHON, LAUNCH, DEVICE, OVERHEAD, OLD_OP, UNKNOWN, GPU_WAIT = range(1, 10)
"""Which table an event belongs to; for 0 there is none. `UNKNOWN` is left to its process."""

COUNTED_OPERATORS = frozenset(
    f"aten::{name}"
    for name in (
        *("mm", "addmm", "bmm", "baddbmm", "linear", "_scaled_mm"),
        *("convolution", "_convolution", "convolution_backward", "mkldnn_convolution"),
        *("cudnn_convolution", "cudnn_convolution_transpose"),
        *("miopen_convolution", "miopen_convolution_transpose"),
        "scaled_dot_product_attention",
        *("_scaled_dot_product_flash_attention", "_scaled_dot_product_flash_attention_backward"),
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_flash_attention_for_cpu_backward",
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_efficient_attention_backward",
        "_scaled_dot_product_cudnn_attention",
        "_scaled_dot_product_cudnn_attention_backward",
        "_scaled_dot_product_fused_attention_overrideable",
    )
)
"""The operators whose recorded inputs are kept: those with a formula for their work."""

_CATEGORIES = {
    "user_annotation": TAG,
    "cpu_op": OP,
    "operator": OLD_OP,
    "python_function": PYTHON,
    "kernel": DEVICE,
    "concurrent_kernel": DEVICE,
    "gpu_memcpy": DEVICE,
    "memcpy": DEVICE,
    "gpu_memset": DEVICE,
    "memset": DEVICE,
    "hpu_op": DEVICE,
    "mtia_ccp_events": DEVICE,
    "mtia_workloadd": DEVICE,
    "collective_comm": DEVICE,
    "overhead": OVERHEAD,
    "runtime": LAUNCH,
    "cuda_sync": GPU_WAIT,
    # What repeats other events or is no work: spans of tags, the profiler's own frame.
    "gpu_user_annotation": 0,
    "trace": 0,
    "cuda_event": 0,
    "cpu_instant_event": 0,
    "ac2g": 0,
    "fwdbwd": 0,
    "live_play": 0,  # the blocks and late frames of a flight recording
}
_ENDINGS = {("_runtime", "_driver"): LAUNCH, ("kernel", "memcpy", "memset"): DEVICE}
"""What categories end with that vendors make up, such as `xpu_kernel`."""

SYNC_KINDS = {
    "stream wait event": STREAM_WAIT_EVENT,
    "event sync": EVENT_SYNC,
    "event synchronize": EVENT_SYNC,
    "stream sync": STREAM_SYNC,
    "stream synchronize": STREAM_SYNC,
    "context sync": DEVICE_SYNC,
    "context synchronize": DEVICE_SYNC,
    "device sync": DEVICE_SYNC,
    "device synchronize": DEVICE_SYNC,
}
"""The kind of a `GPU_WAIT` by its name in lower case."""

TIMELESS_PHASES = tuple("sfiMBECItRcPNODVv()=")
"""Phases of events that are no work: names, instants, flows, counters; `B` and `E` are paired."""

_ASYNC_PHASES = tuple("bneSTpF")
"""Phases of what several threads take part in, which has no place on any of them."""

_COLLECTIVES = ("nccl", "rccl", "oneccl")

_DEVICE_PROCESS = re.compile(
    r"/device:|hardware|^(?:cuda functions|communication|hccl)\b"
    r"|\b(?:gpu|npu|tpu|hpu|xpu|mtia)\b",
    re.IGNORECASE,
)
_HOST_PROCESS = re.compile(r"/host:|\b(?:cpu|python)\b", re.IGNORECASE)
_SPANNING_ROW = re.compile(
    r"^(?:steps|xla modules|xla tracemes?|framework|source|tensorflow|launch stats|overlap)",
    re.IGNORECASE,
)
_OLD_STEP = "ProfilerStep#"
_PYTHON_CALL = re.compile(r"\$\S+ \S")
"""Names of JAX's Python tracer, such as `$core.py:102 bind` and `$builtins len`."""


class Categories(dict[Any, int]):
    """Maps a category of events to the code of its table."""

    def __missing__(self, category: Any) -> int:
        text = str(category).lower()
        code = _CATEGORIES.get(text, UNKNOWN)
        if code == UNKNOWN:
            code = next((of for ends, of in _ENDINGS.items() if text.endswith(ends)), UNKNOWN)
        self[category] = code
        return code


def unread_phase(phase: Any) -> str:
    """Say in words what an event of a phase is that no table has."""
    if phase in _ASYNC_PHASES:
        return "begins, steps and ends of asynchronous events"
    return "events of no known phase"


def old_operator_code(name: Any) -> int:
    """Return the code of an event of torch 1.8, which called the profiler's steps operators."""
    return TAG if isinstance(name, str) and name.startswith(_OLD_STEP) else OP


def is_stream(row: str) -> bool:
    """Return whether a row of a device is one of its streams, as XLA names them.

    A device with such rows repeats their operations in others, such as `XLA Ops`.
    """
    return row.startswith("Stream #")


def code_by_process(process: str, row: str, category: str, on_stream: bool) -> int:
    """Return the code of an event of no known category, 0 if it must be left out.

    `process` and `row` are the names of its process and thread. `on_stream` says that it names
    the device and the stream that it ran on.
    """
    device = on_stream or (_DEVICE_PROCESS.search(process) and not _HOST_PROCESS.search(process))
    if device:
        return 0 if _SPANNING_ROW.search(row) else DEVICE
    return 0 if category or _SPANNING_ROW.search(process) else OP


def is_python_call(name: str) -> bool:
    """Return whether an event of a host's thread is a call that JAX's Python tracer saw."""
    return _PYTHON_CALL.match(name) is not None


def operation_kind(category: Any, name: Any) -> int:
    """Return the kind of a `DEVICE` event, such as `COPY`."""
    name = str(name).lower()
    told_by = name if category is None else str(category).lower()  # XLA's have no categories
    if "memcpy" in told_by:
        return COPY
    if "memset" in told_by:
        return FILL
    return COLLECTIVE if name.startswith(_COLLECTIVES) else KERNEL
