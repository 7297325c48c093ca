"""Accelerations are compared with the unaccelerated model, then timed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from glassworld.bench.gpu.accelerations import TINY, compare_accelerations
from glassworld.bench.gpu.context import BenchContext
from glassworld.bench.section_runner import Figures
from tests.support import tiny


def test_accelerations_are_compared_and_timed(
    context: BenchContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glassworld.bench.gpu.accelerations.COMPARED_BLOCKS", 3)
    monkeypatch.setattr("glassworld.bench.latency.KEYS", 2)
    saved: list[set[str]] = []
    lines: list[str] = []
    context = replace(context, save=lambda figures: saved.append(set(figures)), report=lines.append)
    accelerations = ((), ("attention",), ("graphs", TINY), ("speed",))
    figures = compare_accelerations(context, accelerations)
    assert figures["plain"]["distance_in_spreads"] == [0] * 3
    assert all(figures[name]["fps_median"] > 0 for name in ("plain", "attention", f"graphs+{TINY}"))
    assert "InputError" in figures["speed"]["error"]
    assert saved[1] == {"plain", "attention"}
    assert [line.split(":")[0].strip() for line in lines] == list(figures)
    fps = figures["plain"]["fps_median"]
    assert f"{fps:.1f} frames per second, error 0.0000 std" in lines[0]
    check_kernels(figures["plain"])


def check_kernels(row: Figures) -> None:
    assert row["kernels"][0]["ms"] > 0
    shown = [(kernel["ms"], kernel["count"]) for kernel in row["kernels"]]
    ms, launches = (sum(column) for column in zip(*shown, strict=True))
    assert ms <= row["kernels_ms"] * 1.0001
    assert row["kernels_ms"] < 1.2 * ms
    assert launches <= row["launches"]


def test_an_acceleration_with_other_results_is_not_timed(context: BenchContext) -> None:
    worlds = iter([tiny.world, lambda: tiny.world(denoising_steps=(1000, 500))])
    context = replace(context, build_world=lambda: next(worlds)())
    row = compare_accelerations(context, ((),))["plain"]
    assert max(row["distance_in_spreads"]) > 0.05
    assert "not timed" in row["error"]
    assert "fps_median" not in row
