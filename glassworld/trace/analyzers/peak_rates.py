"""The peak rates that were measured on this machine, and the time that work takes at them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

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

    `machine` is where they were measured, "" if unknown.
    """

    key: str
    matmul_gflops: float
    conv_gflops: float
    copy_gbps: float
    machine: str

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
    """Return the file that stores the measured peak rates, by kind of device and precision."""
    return cache_folder() / "ceilings.json"


def read_peak_rates(metadata: dict[str, object]) -> PeakRates | None:
    """Return the stored peak rates of the run's machine and precision; None without any."""
    config = run_config(metadata)
    rates = stored_peak_rates(config) if config else None
    if config and rates:
        machines = {rates.machine, run_machine(metadata, config)} - {""}
        return rates if len(machines) < 2 else None
    return None


def stored_peak_rates(config: Config) -> PeakRates | None:
    """Return the stored peak rates of the run's kind of device and precision, of any machine.

    None if there are none, or if their file is damaged: then they have to be measured again.
    """
    device = device_kind(config)
    key = f"{device}:{config.get('dtype', 'float32')}"
    try:
        stored = json.loads(peak_rates_path().read_text())[key]
        names = ("matmul_gflops", "conv_gflops", "copy_gbps")
        matmul, conv, copy = (float(stored[name]) for name in names)
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    if not all(0 < rate < float("inf") for rate in (matmul, conv, copy)):
        return None
    return PeakRates(key, matmul, conv, copy, machine_name(stored.get("machine"), device))
