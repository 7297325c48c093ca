"""What a run should cost: its work at the ceilings that were measured on the machine.

The run's configuration is in the trace's metadata under "glassworld".
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glassworld.trace.analyzers.flops import Config, Work, check_config


@dataclass(frozen=True)
class PeakRates:
    """What the machine was measured to do: GFLOP/s of products and convolutions, GB/s of copies.

    `machine` is what they were measured on, "" if that was not written down.
    """

    key: str
    matmul_gflops: float
    conv_gflops: float
    copy_gbps: float
    machine: str

    def ideal_ms(self, done: Work, bytes_per_number: int) -> float:
        """The time the work takes at the ceilings: of computing and moving, the longer."""
        computing = done.products / self.matmul_gflops + done.convolutions / self.conv_gflops
        moving = done.numbers * bytes_per_number / self.copy_gbps
        return max(computing, moving) / 1e6

    def roof_gflops(self, done: Work, bytes_per_number: int) -> tuple[float, str]:
        """The FLOP/s that the work can reach, and what bounds it: arithmetic or memory."""
        ideal = self.ideal_ms(done, bytes_per_number)
        moving = done.numbers * bytes_per_number / self.copy_gbps / 1e6
        return done.flops / ideal / 1e6, "memory" if moving >= ideal else "arithmetic"


def run_config(metadata: dict[str, object]) -> Config | None:
    """The run's configuration, if the engine wrote one that work can be counted from."""
    config = _ours(metadata).get("config")
    if not isinstance(config, dict):
        return None
    try:
        check_config(config)
        len(config["denoising_steps"])
    except (ArithmeticError, KeyError, TypeError, ValueError, IndexError):
        return None
    return config


def run_machine(metadata: dict[str, object], config: Config) -> str:
    """What ran the run: its GPU, or its processor and their cores; "" if the trace has it not."""
    return _machine(_ours(metadata).get("machine"), _device(config))


def _ours(metadata: dict[str, object]) -> dict[str, Any]:
    ours = metadata.get("glassworld")
    if isinstance(ours, str):
        try:
            ours = json.loads(ours)
        except ValueError:
            return {}
    return ours if isinstance(ours, dict) else {}


def _machine(facts: object, device: str) -> str:
    if not isinstance(facts, dict):
        return ""
    if device != "cpu":
        return str(facts.get("gpu") or "")
    cores = f", {facts['cores']} cores" if "cores" in facts else ""
    return f"{facts['processor']}{cores}" if facts.get("processor") else ""


def _device(config: Config) -> str:
    """The kind of device the run was on."""
    return str(config.get("device", "cpu")).split(":")[0]


def read_ceilings(metadata: dict[str, object]) -> PeakRates | None:
    """The stored ceilings for the run's machine and precision; None if none were measured."""
    config = run_config(metadata)
    found = stored_ceilings(config) if config else None
    if config and found:
        machines = {found.machine, run_machine(metadata, config)} - {""}
        return found if len(machines) < 2 else None
    return None


def stored_ceilings(config: Config) -> PeakRates | None:
    """The stored ceilings for the run's kind of device and precision, whatever the machine.

    None if there are none, also where their file is damaged: then they have to be measured anew.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    device = _device(config)
    key = f"{device}:{config.get('dtype', 'float32')}"
    try:
        found = json.loads((cache / "glassworld" / "ceilings.json").read_text())[key]
        names = ("matmul_gflops", "conv_gflops", "copy_gbps")
        products, convolutions, copies = (float(found[name]) for name in names)
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    if not all(0 < rate < float("inf") for rate in (products, convolutions, copies)):
        return None
    return PeakRates(key, products, convolutions, copies, _machine(found.get("machine"), device))
