"""The regression guard finds a slower program, and compares like with like."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from glassworld.bench import regression
from glassworld.bench.tables import print_comparison
from glassworld.errors import InputError


@pytest.fixture
def measured() -> dict[str, Any]:
    return {
        "ceilings": {"matmul_gflops": 100.0, "conv_gflops": 200.0},
        "roofline": [
            {"tag": "VAE_Decode", "gflop": 1.0, "ms": 10.0},
            {"tag": "Layer", "gflop": 2.0, "ms": 100.0},
        ],
        "speedup": 4.0,
        "config": {"world": "maze", "device": "cpu", "dtype": "float32", "threads": 2},
        "machine": {"processor": "a processor"},
        "versions": {"glassworld": "0.0"},
    }


@pytest.fixture
def baseline(measured: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    path = tmp_path / "baseline.json"
    regression.save_baseline(measured, path)
    return regression.read_baseline(path)


def test_a_missing_baseline_names_the_flag_that_saves_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--save-baseline"):
        regression.read_baseline(tmp_path / "baseline.json")


def test_the_same_figures_have_the_same_ratios(
    measured: dict[str, Any], baseline: dict[str, Any]
) -> None:
    assert baseline["machine"] == measured["machine"]
    rows = regression.compare_with_baseline(measured, baseline)
    assert [row.now for row in rows] == pytest.approx([row.before for row in rows])
    assert [row.now for row in rows] == pytest.approx([0.2, 0.5, 4.0])
    assert not any(row.dropped for row in rows)


def test_a_slower_program_is_found(measured: dict[str, Any], baseline: dict[str, Any]) -> None:
    rows = regression.compare_with_baseline({**measured, "speedup": 0.7 * 4.0}, baseline)
    assert [row.name for row in rows if row.dropped] == ["speedup over the eager baseline"]
    console = Console(record=True, width=100)
    print_comparison(rows, baseline, console)
    assert console.export_text().count("slower") == 1


def test_figures_of_something_else_are_not_compared(
    measured: dict[str, Any], baseline: dict[str, Any]
) -> None:
    other = {**measured, "config": {**measured["config"], "dtype": "bfloat16"}}
    with pytest.raises(InputError, match="bfloat16: the baseline was measured with float32"):
        regression.compare_with_baseline(other, baseline)
    with pytest.raises(InputError, match="measured other ratios"):
        regression.compare_with_baseline(measured, {**baseline, "ratios": {"fps": 1.0}})
    with pytest.raises(InputError, match="roofline: not measured"):
        regression.compare_with_baseline({**measured, "roofline": []}, baseline)


def test_the_committed_baseline_can_be_compared(measured: dict[str, Any]) -> None:
    committed = regression.read_baseline()
    assert committed["ratios"].keys() == regression.performance_ratios(measured).keys()
