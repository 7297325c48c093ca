"""What a trace says about its run beside the events: configuration, versions, machine."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import torch

METADATA_KEY = "glassworld"
METADATA_VERSION = 1

_config: dict[str, Any] = {}


def describe_run(**config: Any) -> None:
    """Put facts about the run (JSON values) into the metadata of a capture that is on or begins."""
    _config.update(config)


def metadata(profile_mode: str) -> dict[str, Any]:
    """The object that a trace carries under `METADATA_KEY`."""
    return {
        "version": METADATA_VERSION,
        "config": {**_config, "profile_mode": profile_mode},
        "machine": machine(),
        "versions": versions(),
    }


def machine() -> dict[str, Any]:
    """What ran the run."""
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
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """The software of the run."""
    from glassworld import __version__

    return {
        "glassworld": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
