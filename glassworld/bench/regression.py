"""The guard against getting slower: figures as ratios to the machine's ceilings, and a committed
file of them to compare with.

Ratios stay put when the machine is faster or slower as a whole; what moves them is the program.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glassworld.errors import InputError
from glassworld.files import replacing

BASELINE = Path(__file__).with_name("baseline.json")
MAY_FALL = 0.25
"""By how much of itself a ratio may fall: two runs on an idle machine differ by a tenth."""

DECODER = "VAE_"


def ratios(figures: dict[str, Any]) -> dict[str, float]:
    """What a benchmark reached: shares of the ceilings, and times the baseline's speed."""
    ceilings, points = figures["ceilings"], figures["roofline"]
    decoder = [point for point in points if point["tag"].startswith(DECODER)]
    transformer = [point for point in points if not point["tag"].startswith(DECODER)]
    return {
        "transformer, of the products' ceiling": _rate(transformer) / ceilings["matmul_gflops"],
        "decoder, of the convolutions' ceiling": _rate(decoder) / ceilings["conv_gflops"],
        "frames, times the eager baseline's": figures["speedup"],
    }


def _rate(points: list[dict[str, Any]]) -> float:
    """GFLOP/s over several tags."""
    return float(1e3 * sum(p["gflop"] for p in points) / sum(p["ms"] for p in points))


@dataclass(frozen=True)
class Ratio:
    """One line of a comparison."""

    name: str
    before: float
    now: float

    @property
    def fell(self) -> bool:
        return self.now < (1 - MAY_FALL) * self.before


def save(figures: dict[str, Any], path: Path = BASELINE) -> None:
    """Make these figures the baseline, with the machine they were measured on."""
    kept = {
        "world": figures["config"]["world"],
        "device": figures["config"]["device"].partition(":")[0],
        "dtype": figures["config"]["dtype"],
        "threads": figures["config"]["threads"],
        "machine": figures["machine"],
        "versions": figures["versions"],
        "ratios": ratios(figures),
    }
    with replacing(path) as partial:
        partial.write_text(json.dumps(kept, indent=1) + "\n")


def read(path: Path = BASELINE) -> dict[str, Any]:
    """The committed baseline; an `InputError` if there is none."""
    if not path.is_file():
        raise InputError(f"{path}: no baseline; `glassworld bench run --save-baseline` makes one")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def compare(figures: dict[str, Any], baseline: dict[str, Any]) -> list[Ratio]:
    """The figures' ratios beside the baseline's. An `InputError` if they are of something else."""
    config = figures["config"]
    for name in ("world", "device", "dtype"):
        now = config[name].partition(":")[0] if name == "device" else config[name]
        if now != baseline[name]:
            raise InputError(
                f"the baseline is of {name} {baseline[name]}, not of {now}: compare that one"
            )
    now = ratios(figures)
    return [Ratio(name, before, now[name]) for name, before in baseline["ratios"].items()]
