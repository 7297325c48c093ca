"""Peak rates of this machine, measured: matmuls, copies and convolutions.

`glassworld bench peak-rates` stores them in the user's cache, one entry per device, precision and
number of threads. The trace's report and the benchmark compare with them.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from glassworld.engine.runtime.device import Precision, pick_device, synchronize
from glassworld.files import replacing, writable_folder
from glassworld.models.ops import onednn
from glassworld.profiling.metadata import machine, versions
from glassworld.trace.analyzers.peak_rates import peak_rates_path, stored_peak_rates
from glassworld.trace.analyzers.run_config import machine_name

REPEATS = 9

RATES = ("matmul_gflops", "conv_gflops", "copy_gbps")

# Large enough to reach the peak, small enough for a few seconds on two cores.
MATRIX = {"cpu": 1024, "cuda": 8192}
COPY_MEGABYTES = {"cpu": 256, "cuda": 2048}
CONV_SHAPE = {"cpu": (4, 96, 80, 128), "cuda": (4, 192, 352, 640)}  # frames, channels, H, W


def median_seconds(
    call: Callable[[], object], device: torch.device, repeats: int = REPEATS
) -> float:
    """Return the median seconds of a call, device synchronized, after two calls to warm up."""
    return statistics.median(_seconds(call, device, repeats))


def fastest_seconds(
    call: Callable[[], object], device: torch.device, repeats: int = REPEATS
) -> float:
    """Return the fewest seconds of a call: other load on a machine only ever slows one down."""
    return min(_seconds(call, device, repeats))


def _seconds(call: Callable[[], object], device: torch.device, repeats: int) -> list[float]:
    """Time a call several times, device synchronized, after two calls to warm up."""
    seconds = []
    for _ in range(repeats + 2):
        began = time.perf_counter()
        call()
        synchronize(device)
        seconds.append(time.perf_counter() - began)
    return seconds[2:]


@torch.inference_mode()
def measure_peak_rates(device_name: str, dtype_name: str | None) -> dict[str, Any]:
    """Measure GFLOP/s of a square matmul and of a 3x3 convolution, and GB/s of a copy.

    A copy counts bytes read and written. Matmuls run in the precision of the transformer,
    convolutions in that of the decoder, for `dtype_name` as `load_world` takes it.
    """
    device = pick_device(device_name)
    precision = Precision.of(device, dtype_name)
    moment = {"measured_at": _now(), "load_average": load_average()}  # before it adds to the load
    return {
        "matmul_gflops": _matmul_flops(device, precision.dit) / 1e9,
        "copy_gbps": _copy_rate(device) / 1e9,
        "conv_gflops": _conv_flops(device, precision.decoding) / 1e9,
        "dtype": str(precision.dit).removeprefix("torch."),
        "conv_dtype": str(precision.decoding).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        **moment,
        "machine": machine(),
        "versions": versions(),
    }


def fastest_rates(earlier: dict[str, Any], later: dict[str, Any]) -> dict[str, Any]:
    """Return two measurements on one machine as one, with the larger of each rate."""
    return earlier | {rate: max(earlier[rate], later[rate]) for rate in RATES}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def load_average() -> float | None:
    """Return how many processes wanted to run in the last minute; None where it is unknown."""
    if sys.platform == "win32":
        return None
    try:
        return round(os.getloadavg()[0], 2)
    except OSError:
        return None


def _matmul_flops(device: torch.device, dtype: torch.dtype) -> float:
    size = MATRIX[device.type]
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / min(fastest_seconds(call, device) for call in _matmul_variants(a, b))


def _matmul_variants(a: Tensor, b: Tensor) -> list[Callable[[], Tensor]]:
    """Return the matmuls this package uses on the device: torch's, and oneDNN's where it suits."""
    variants = [lambda: a @ b]
    if onednn.supports(a, b, a.shape[0] * b.numel()):
        weight = onednn.pack_linear_weight(b)
        variants.append(lambda: onednn.linear(a, weight, None, gelu=False))
    return variants


def _copy_rate(device: torch.device) -> float:
    source = torch.empty(COPY_MEGABYTES[device.type] * 2**20, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / fastest_seconds(lambda: target.copy_(source), device)


def _conv_flops(device: torch.device, dtype: torch.dtype) -> float:
    frames, channels, height, width = CONV_SHAPE[device.type]
    x = torch.randn(frames, channels, height, width, device=device).to(dtype)
    weight = torch.randn(channels, channels, 3, 3, device=device).to(dtype)
    x = x.contiguous(memory_format=torch.channels_last)
    weight = weight.contiguous(memory_format=torch.channels_last)
    flops = 2 * 9 * frames * channels**2 * height * width
    return flops / fastest_seconds(lambda: F.conv2d(x, weight, padding=1), device)


def peak_rates_folder() -> Path:
    """Return the folder of the stored peak rates, and create it if necessary.

    Call it before a measurement: raises `InputError` if the folder cannot be written.
    """
    advice = "peak rates are stored there; set XDG_CACHE_HOME to a writable directory"
    return writable_folder(peak_rates_path().parent, advice)


def store_peak_rates(device_name: str, measured: dict[str, Any]) -> Path:
    """Store a measurement under its kind of device, precision and threads; return the file.

    Entries of other threads stay; one without its threads in the key, from an older version, goes.
    A damaged file is replaced.
    """
    peak_rates_folder()
    path = peak_rates_path()
    stored = _read_stored(path)
    key = f"{pick_device(device_name).type}:{measured['dtype']}"
    stored.pop(key, None)
    stored[f"{key}:{measured['threads']}"] = measured
    with replacing(path) as partial:
        partial.write_text(json.dumps(stored, indent=1), encoding="utf-8")
    return path


def compare_with_stored(device_name: str, measured: dict[str, Any]) -> dict[str, Any] | None:
    """Return how far a measurement is from the stored one of the same machine and threads.

    The ratio of each rate, measured by stored, and when and under which load the stored one was
    measured; None without one.
    """
    device = pick_device(device_name).type
    wanted = {"device": device, "dtype": measured["dtype"], "threads": measured["threads"]}
    stored = stored_peak_rates(wanted)
    here = machine_name(measured["machine"], device)
    if stored is None or stored.threads != measured["threads"] or stored.machine not in ("", here):
        return None
    return {
        "ratios": {name: measured[name] / getattr(stored, name) for name in RATES},
        "threads": stored.threads,
        "measured_at": stored.measured_at,
        "load_average": stored.load_average,
    }


def _read_stored(path: Path) -> dict[str, Any]:
    try:
        stored = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return stored if isinstance(stored, dict) else {}
