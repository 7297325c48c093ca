"""Accelerations are compared with the unaccelerated model, then timed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from glassworld.bench.gpu.accelerations import COMPARED_BLOCKS, TINY, compare_accelerations
from glassworld.bench.gpu.context import BenchContext
from glassworld.bench.section_runner import Figures
from tests.support import tiny


@pytest.mark.slow
def test_accelerations_are_compared_and_timed(
    context: BenchContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glassworld.bench.gpu.accelerations.COMPARED_BLOCKS", 3)
    monkeypatch.setattr("glassworld.bench.latency.KEYS", 2)
    check_comparison(context, ((), ("graphs", TINY), ("speed",)), compared_blocks=3)


@pytest.mark.slow
def test_all_compared_blocks_of_an_exact_acceleration_are_compared(context: BenchContext) -> None:
    accelerations = ((), ("attention",), ("graphs", TINY), ("speed",))
    check_comparison(context, accelerations, COMPARED_BLOCKS)


def check_comparison(
    context: BenchContext, accelerations: Sequence[tuple[str, ...]], compared_blocks: int
) -> None:
    saved: list[list[str]] = []
    lines: list[str] = []
    context = replace(
        context, save=lambda figures: saved.append(list(figures)), report=lines.append
    )
    figures = compare_accelerations(context, accelerations)
    names = ["+".join(parts) or "plain" for parts in accelerations]
    assert figures["plain"]["distance_in_spreads"] == [0] * compared_blocks
    assert all(figures[name]["fps_median"] > 0 for name in names[:-1])
    assert "InputError" in figures["speed"]["error"]
    assert saved == [names[: count + 1] for count in range(len(names))]
    assert [line.split(":")[0].strip() for line in lines] == names
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


@pytest.mark.slow
def test_an_acceleration_with_other_results_is_not_timed(context: BenchContext) -> None:
    worlds = iter([tiny.world, lambda: tiny.world(denoising_steps=(1000, 500))])
    context = replace(context, build_world=lambda: next(worlds)())
    row = compare_accelerations(context, ((),))["plain"]
    assert max(row["distance_in_spreads"]) > 0.05
    assert "not timed" in row["error"]
    assert "fps_median" not in row
