"""Regression guard: ratios to the machine's peak rates, compared with a committed baseline.

Ratios stay the same on a machine that is faster or slower as a whole. A change of the program
moves them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glassworld.errors import InputError
from glassworld.files import replacing

BASELINE = Path(__file__).with_name("baseline.json")
MAX_DROP = 0.25
"""Fraction that a ratio may lose: two runs on an idle machine differ by a tenth."""

DECODER_TAGS = "VAE_"
NEEDED = ("ceilings", "roofline", "speedup")
"""Figures that ratios are computed from."""


@dataclass(frozen=True)
class SpeedRatio:
    """One line of a comparison with the baseline."""

    name: str
    before: float
    now: float

    @property
    def dropped(self) -> bool:
        """True if the ratio lost more than `MAX_DROP` of itself."""
        return self.now < (1 - MAX_DROP) * self.before


def performance_ratios(figures: dict[str, Any]) -> dict[str, float]:
    """Return the shares of the peak rates that a run reached, and its speedup.

    Raises `InputError` if the run did not measure them.
    """
    if missing := [name for name in NEEDED if not figures.get(name)]:
        raise InputError(
            f"{missing[0]}: not measured, so there is nothing to compare; run again, with a "
            "larger --minutes if the time was up"
        )
    rates, points = figures["ceilings"], figures["roofline"]
    decoder = [point for point in points if point["tag"].startswith(DECODER_TAGS)]
    transformer = [point for point in points if not point["tag"].startswith(DECODER_TAGS)]
    return {
        "transformer, share of the matmul peak": _gflops(transformer) / rates["matmul_gflops"],
        "decoder, share of the convolution peak": _gflops(decoder) / rates["conv_gflops"],
        "speedup over the eager baseline": figures["speedup"],
    }


def _gflops(points: list[dict[str, Any]]) -> float:
    """Return the GFLOP/s over several tags."""
    return float(1e3 * sum(p["gflop"] for p in points) / sum(p["ms"] for p in points))


def save_baseline(figures: dict[str, Any], path: Path = BASELINE) -> None:
    """Make a run the baseline, and store the machine it was measured on."""
    config = figures["config"]
    baseline = {
        "world": config["world"],
        "device": config["device"].partition(":")[0],
        "dtype": config["dtype"],
        "threads": config["threads"],
        "machine": figures["machine"],
        "versions": figures["versions"],
        "ratios": performance_ratios(figures),
    }
    with replacing(path) as partial:
        partial.write_text(json.dumps(baseline, indent=1) + "\n", encoding="utf-8")


def read_baseline(path: Path = BASELINE) -> dict[str, Any]:
    """Read the committed baseline; raise `InputError` if there is none."""
    if not path.is_file():
        raise InputError(
            f"{path}: no baseline; save one with `glassworld bench run --save-baseline`"
        )
    baseline: dict[str, Any] = json.loads(path.read_bytes())
    return baseline


def check_baseline(baseline: dict[str, Any], config: dict[str, Any]) -> None:
    """Raise `InputError` if the baseline is of another world, device or precision than a run."""
    for name in ("world", "device", "dtype"):
        now = config[name].partition(":")[0] if name == "device" else config[name]
        if now != baseline[name]:
            raise InputError(
                f"{name} {now}: the baseline was measured with {baseline[name]}; compare that one, "
                "or save a new baseline with --save-baseline"
            )


def compare_with_baseline(figures: dict[str, Any], baseline: dict[str, Any]) -> list[SpeedRatio]:
    """Return the ratios of a run beside those of the baseline.

    Raises `InputError` if they cannot be compared.
    """
    check_baseline(baseline, figures["config"])
    now, before = performance_ratios(figures), baseline["ratios"]
    if now.keys() != before.keys():
        raise InputError(
            f"the baseline was saved by glassworld {baseline['versions']['glassworld']}, which "
            "measured other ratios; save a new baseline with --save-baseline"
        )
    return [SpeedRatio(name, before[name], now[name]) for name in now]
