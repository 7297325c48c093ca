"""Read the run's configuration and machine from the trace's metadata (its key "glassworld")."""

from __future__ import annotations

import json
from typing import Any

from glassworld.trace.analyzers.flops import Config, check_config


def run_config(metadata: dict[str, object]) -> Config | None:
    """Return the run's configuration; None unless the engine wrote one whose work is countable."""
    config = _engine_metadata(metadata).get("config")
    if not isinstance(config, dict):
        return None
    try:
        check_config(config)
        len(config["denoising_steps"])
    except (ArithmeticError, KeyError, TypeError, ValueError, IndexError):
        return None
    return config


def run_machine(metadata: dict[str, object], config: Config) -> str:
    """Return the name of the run's GPU, or of its processor; "" if the trace does not say."""
    return machine_name(_engine_metadata(metadata).get("machine"), device_kind(config))


def device_kind(config: Config) -> str:
    """Return the kind of device of the run, such as `cpu` or `cuda`."""
    return str(config.get("device", "cpu")).split(":")[0]


def machine_name(facts: object, device: str) -> str:
    """Return the GPU's name, or on a CPU the processor's with its cores; "" if unknown."""
    if not isinstance(facts, dict):
        return ""
    if device != "cpu":
        return str(facts.get("gpu") or "")
    cores = f", {facts['cores']} cores" if "cores" in facts else ""
    return f"{facts['processor']}{cores}" if facts.get("processor") else ""


def late_frame(metadata: dict[str, object]) -> dict[str, Any] | None:
    """Return what a flight recording says about the late frame it was written for, else None.

    With the frame's `time` (ISO), `block`, `frame` and `late_ms`; and with `waited_ms`,
    `generated_ms` and `encoded_ms` of its block where they are known.
    """
    recording = _engine_metadata(metadata).get("flight_recorder")
    if not isinstance(recording, dict):
        return None
    late, block = recording.get("late_frame"), recording.get("late_block")
    if not isinstance(late, dict):
        return {}
    return {**(block if isinstance(block, dict) else {}), **late}


def _engine_metadata(metadata: dict[str, object]) -> dict[str, Any]:
    written = metadata.get("glassworld")
    if isinstance(written, str):
        try:
            written = json.loads(written)
        except ValueError:
            return {}
    return written if isinstance(written, dict) else {}
