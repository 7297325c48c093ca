"""The metadata of a trace beside its events: configuration, versions, machine."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

METADATA_KEY = "glassworld"
METADATA_VERSION = 1


def metadata(profile_mode: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the object that a trace carries under `METADATA_KEY`.

    `config`: the run's configuration as JSON values.
    """
    return {
        "version": METADATA_VERSION,
        "config": {**config, "profile_mode": profile_mode},
        "machine": machine(),
        "versions": versions(),
    }


def machine() -> dict[str, Any]:
    """Describe the machine: its processor, its system and its GPU."""
    facts: dict[str, Any] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": platform.system(),
    }
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    return facts


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Return the versions of the software."""
    from glassworld import __version__

    return {
        "glassworld": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
