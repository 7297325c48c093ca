"""Peak rates are measured and stored, and refused where they cannot be."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch

from glassworld.bench.peak_rates import (
    compare_with_stored,
    measure_peak_rates,
    peak_rates_folder,
    store_peak_rates,
)
from glassworld.bench.tables import SECTIONS, measurement_line
from glassworld.cli import main
from tests.support.bench import use_small_peak_rates
from tests.support.paths import A_FILE, ROOT

SHOWN = {
    "matmul_gflops": 80.0,
    "conv_gflops": 50.0,
    "copy_gbps": 10.0,
    "dtype": "float32",
    "conv_dtype": "float32",
    "threads": 2,
}


@pytest.fixture(autouse=True)
def _small_peak_rates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_small_peak_rates(monkeypatch, tmp_path)


def test_peak_rates_are_stored_for_the_report() -> None:
    path = store_peak_rates("cpu", measure_peak_rates("cpu", "float32"))
    stored = json.loads(path.read_text())[f"cpu:float32:{torch.get_num_threads()}"]
    assert min(stored["matmul_gflops"], stored["copy_gbps"], stored["conv_gflops"]) > 0
    assert datetime.fromisoformat(stored["measured_at"]).tzinfo is UTC
    assert stored["load_average"] is None or stored["load_average"] >= 0


def _rates(threads: int, matmul: float = 100.0, **more: object) -> dict[str, Any]:
    rates = {"matmul_gflops": matmul, "conv_gflops": 50.0, "copy_gbps": 10.0}
    return {**rates, "dtype": "float32", "threads": threads, "machine": {}, **more}


def test_peak_rates_of_each_number_of_threads_are_stored_and_compared_with() -> None:
    store_peak_rates("cpu", _rates(1, measured_at="2030-01-01T00:00:00+00:00", load_average=0.5))
    store_peak_rates("cpu", _rates(4, 300.0))
    compared = compare_with_stored("cpu", _rates(1, 80.0))
    assert compared is not None
    assert compared["ratios"] == {"matmul_gflops": 0.8, "conv_gflops": 1.0, "copy_gbps": 1.0}
    assert compared["load_average"] == 0.5
    assert compare_with_stored("cpu", _rates(2)) is None
    line = "measured 2030-01-01T00:00:00+00:00, 1 thread, load average 0.5"
    assert measurement_line(compared) == line
    rows = SECTIONS["peak rates"][1]({"ceilings": SHOWN, "stored_ceilings": compared})
    assert rows["  against the stored ones"] == (
        f"matmul -20 %, convolution +0 %, copy +0 %; those: {line}"
    )
    rows = SECTIONS["peak rates"][1]({"ceilings": SHOWN, "stored_ceilings": None})
    assert rows["  against the stored ones"].startswith("none stored for 2 threads")


def test_peak_rates_of_an_older_version_are_compared_with_and_replaced() -> None:
    path = peak_rates_folder() / "ceilings.json"
    path.write_text(json.dumps({"cpu:float32": _rates(2, 50.0)}))
    compared = compare_with_stored("cpu", _rates(2))
    assert compared is not None
    assert compared["ratios"]["matmul_gflops"] == 2.0
    assert "at an unknown time" in measurement_line(compared)
    store_peak_rates("cpu", _rates(2))
    assert list(json.loads(path.read_text())) == ["cpu:float32:2"]


@pytest.mark.parametrize("command", ["peak-rates", "ceilings"])
def test_peak_rates_command_prints_stores_and_writes_them(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rates.json"
    assert main(["bench", command, "--json", str(path)]) == 0
    assert json.loads(path.read_text())["matmul_gflops"] > 0
    assert "cpu: matmul" in capsys.readouterr().out
    assert list(tmp_path.rglob("ceilings.json"))


@pytest.mark.parametrize(
    ("cache", "flags", "message"),
    [
        (f"{A_FILE}/cache", [], "peak rates are stored there; set XDG_CACHE_HOME"),
        ("", ["--json", f"{A_FILE}/more/c.json"], "choose another output folder"),
        ("", ["--json", f"{ROOT}"], "is a folder; name the file to write"),
    ],
)
def test_peak_rates_that_cannot_be_written_are_not_measured(
    cache: str,
    flags: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if cache:
        monkeypatch.setenv("XDG_CACHE_HOME", cache)
    assert main(["bench", "peak-rates", *flags]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"error: {ROOT}")
    assert message in printed.err
    assert not printed.out
    assert not list(tmp_path.rglob("ceilings.json"))


@pytest.mark.parametrize("damaged", ["", '{"cpu:float32": {"matmul', "[1]", "[" * 100_000])
def test_a_damaged_file_of_peak_rates_is_replaced(damaged: str) -> None:
    path = store_peak_rates("cpu", {"dtype": "float32", "threads": 2})
    path.write_text(damaged)
    store_peak_rates("cpu", {"dtype": "bfloat16", "threads": 2})
    store_peak_rates(
        "cpu:0", {"dtype": "float32", "threads": 2}
    )  # a report asks for the kind of device
    assert sorted(json.loads(path.read_text())) == ["cpu:bfloat16:2", "cpu:float32:2"]
