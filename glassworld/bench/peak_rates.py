"""What this machine can do at best: matrix products, copies and convolutions, measured.

Stored in the user's cache, one entry per device and precision; the trace's report and the
benchmark hold what they see against it.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from glassworld.engine.runtime.device import Precision, pick_device, synchronize
from glassworld.files import cache_folder, replacing, writable_folder
from glassworld.models.ops import onednn
from glassworld.profiling.metadata import machine, versions

FILE = "ceilings.json"
REPEATS = 9

# Large enough to reach the ceiling, small enough for a minute on two cores.
MATRIX = {"cpu": 1024, "cuda": 8192}
COPY_MEGABYTES = {"cpu": 256, "cuda": 2048}
PICTURES = {"cpu": (4, 96, 80, 128), "cuda": (4, 192, 352, 640)}  # frames, channels, rows, columns


def median_seconds(
    run: Callable[[], object], device: torch.device, repeats: int = REPEATS
) -> float:
    """The median wall-clock time of `run`, the device waited for; two runs go unmeasured first."""
    seconds = []
    for index in range(repeats + 2):
        began = time.perf_counter()
        run()
        synchronize(device)
        if index >= 2:
            seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def products(a: Tensor, b: Tensor) -> list[Callable[[], Tensor]]:
    """The ways this package multiplies on the device: torch's, and by oneDNN where it suits."""
    ways = [lambda: a @ b]
    if onednn.supports(a, b, a.shape[0] * b.numel()):
        weight = onednn.pack_linear_weight(b)
        ways.append(lambda: onednn.linear(a, weight, None, gelu=False))
    return ways


@torch.inference_mode()
def measure(device_name: str, dtype_name: str | None) -> dict[str, Any]:
    """GFLOP/s of a square product and of a 3x3 convolution, GB/s of a copy (read and written).

    Products in the precision of the transformer, convolutions in the decoder's: `dtype_name` as
    `load_world` takes it.
    """
    device = pick_device(device_name)
    precision = Precision.of(device, dtype_name)
    dtype = precision.dit
    size = MATRIX[device.type]
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    matmul = 2 * size**3 / min(median_seconds(way, device) for way in products(a, b))
    source = torch.empty(COPY_MEGABYTES[device.type] * 2**20, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy = 2 * source.nbytes / median_seconds(lambda: target.copy_(source), device)
    frames, channels, rows, columns = PICTURES[device.type]
    pictures = torch.randn(frames, channels, rows, columns, device=device).to(precision.decoding)
    weight = torch.randn(channels, channels, 3, 3, device=device).to(precision.decoding)
    pictures = pictures.contiguous(memory_format=torch.channels_last)
    weight = weight.contiguous(memory_format=torch.channels_last)
    work = 2 * 9 * frames * channels**2 * rows * columns
    conv = work / median_seconds(lambda: F.conv2d(pictures, weight, padding=1), device)
    return {
        "matmul_gflops": matmul / 1e9,
        "copy_gbps": copy / 1e9,
        "conv_gflops": conv / 1e9,
        "dtype": str(dtype).removeprefix("torch."),
        "conv_dtype": str(precision.decoding).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "machine": machine(),
        "versions": versions(),
    }


def store_folder() -> Path:
    """Where ceilings are kept, made if it is not there; an `InputError` if none can be kept.

    Measuring takes a while: whoever is going to store asks first.
    """
    advice = "the machine's ceilings are kept there; set XDG_CACHE_HOME to a folder that can"
    return writable_folder(cache_folder(), advice)


def store(device_name: str, measured: dict[str, Any]) -> Path:
    """Add a measurement to the stored ones, under kind of device and transformer's precision.

    Returns their file; one that was damaged is begun anew.
    """
    path = store_folder() / FILE
    known = _stored(path)
    known[f"{pick_device(device_name).type}:{measured['dtype']}"] = measured
    with replacing(path) as partial:
        partial.write_text(json.dumps(known, indent=1))
    return path


def _stored(path: Path) -> dict[str, Any]:
    try:
        known = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return known if isinstance(known, dict) else {}
