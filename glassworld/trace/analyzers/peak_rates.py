"""The peak rates that were measured on this machine, and the time that work takes at them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from glassworld.files import cache_folder
from glassworld.trace.analyzers.flops import Config, Cost
from glassworld.trace.analyzers.run_config import (
    device_kind,
    machine_name,
    run_config,
    run_machine,
)


@dataclass(frozen=True)
class PeakRates:
    """Measured rates of a machine: GFLOP/s of matmuls and convolutions, GB/s of copies.

    `machine` is where they were measured, with `threads` CPU threads, at `measured_at` (ISO 8601,
    UTC), when `load_average` processes wanted to run; "" or None if unknown.
    """

    key: str
    matmul_gflops: float
    conv_gflops: float
    copy_gbps: float
    machine: str
    threads: int | None = None
    measured_at: str = ""
    load_average: float | None = None

    def ideal_ms(self, cost: Cost, bytes_per_element: int) -> float:
        """Return the time at the peak rates: of computing or of moving data, the longer."""
        computing = cost.matmul_flops / self.matmul_gflops + cost.conv_flops / self.conv_gflops
        moving = cost.elements * bytes_per_element / self.copy_gbps
        return max(computing, moving) / 1e6

    def roof_gflops(self, cost: Cost, bytes_per_element: int) -> tuple[float, str]:
        """Return the attainable GFLOP/s, and what bounds it: arithmetic or memory."""
        ideal = self.ideal_ms(cost, bytes_per_element)
        moving = cost.elements * bytes_per_element / self.copy_gbps / 1e6
        return cost.flops / ideal / 1e6, "memory" if moving >= ideal else "arithmetic"


def peak_rates_path() -> Path:
    """Return the file that stores the peak rates, by kind of device, precision and threads."""
    return cache_folder() / "ceilings.json"


def read_peak_rates(metadata: dict[str, object], dtype: str | None = None) -> PeakRates | None:
    """Return the stored peak rates of the run's machine and precision; None without any.

    `dtype` is another precision than the run's.
    """
    config = run_config(metadata)
    if config and dtype:
        config = {**config, "dtype": dtype}
    rates = stored_peak_rates(config) if config else None
    if config and rates:
        machines = {rates.machine, run_machine(metadata, config)} - {""}
        return rates if len(machines) < 2 else None
    return None


def peak_rates_by_dtype(
    metadata: dict[str, object], on_gpu: bool
) -> Callable[[str], PeakRates | None]:
    """Return a function from a type, such as `bfloat16`, to the peak rates of the trace's machine.

    The machine is that of the run's configuration; else, for work `on_gpu`, the GPU that
    torch.profiler names.
    """
    config, machine = run_config(metadata), _profiled_gpu(metadata) if on_gpu else ""

    def rates_of(dtype: str) -> PeakRates | None:
        if config:
            return read_peak_rates(metadata, dtype)
        rates = stored_peak_rates({"device": "cuda", "dtype": dtype}) if machine else None
        return rates if rates and rates.machine == machine else None

    return cache(rates_of)


def _profiled_gpu(metadata: dict[str, object]) -> str:
    """Return the name of the GPUs that torch.profiler found; "" without any, or with several."""
    devices = metadata.get("deviceProperties")
    found = devices if isinstance(devices, list) else []
    names = {str(gpu.get("name") or "") if isinstance(gpu, dict) else "" for gpu in found}
    return names.pop() if len(names) == 1 else ""


def stored_peak_rates(config: Config) -> PeakRates | None:
    """Return the stored peak rates of the run's kind of device and precision, of any machine.

    Those of the run's number of threads are preferred, then those of the most threads; `threads`
    says which. None if there are none, or if their file is damaged: then they have to be measured
    again.
    """
    key = f"{device_kind(config)}:{config.get('dtype', 'float32')}"
    try:
        stored = json.loads(peak_rates_path().read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(stored, dict):
        return None
    entries = (_read_entry(name, rates) for name, rates in stored.items() if _is_of(name, key))
    wanted = config.get("threads")
    return max(
        filter(None, entries),
        key=lambda rates: (rates.threads == wanted, rates.threads or 0, rates.measured_at),
        default=None,
    )


def _is_of(name: str, key: str) -> bool:
    """Return whether a stored entry is of a device and precision; older ones lack the threads."""
    return name == key or name.startswith(f"{key}:")


def _read_entry(name: str, stored: Any) -> PeakRates | None:
    """Read one stored measurement; None if it is damaged."""
    try:
        names = ("matmul_gflops", "conv_gflops", "copy_gbps")
        matmul, conv, copy = (float(stored[rate]) for rate in names)
        threads, load = stored.get("threads"), stored.get("load_average")
        entry = PeakRates(
            name,
            matmul,
            conv,
            copy,
            machine_name(stored.get("machine"), name.partition(":")[0]),
            None if threads is None else int(threads),
            str(stored.get("measured_at", "")),
            None if load is None else float(load),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return None
    return entry if all(0 < rate < float("inf") for rate in (matmul, conv, copy)) else None
