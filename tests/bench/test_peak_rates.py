"""Peak rates are measured and stored, and refused where they cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from glassworld.bench.peak_rates import measure_peak_rates, store_peak_rates
from glassworld.cli import main
from tests.support.bench import use_small_peak_rates


@pytest.fixture(autouse=True)
def _small_peak_rates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_small_peak_rates(monkeypatch, tmp_path)


def test_peak_rates_are_stored_for_the_report() -> None:
    path = store_peak_rates("cpu", measure_peak_rates("cpu", "float32"))
    stored = json.loads(path.read_text())["cpu:float32"]
    assert min(stored["matmul_gflops"], stored["copy_gbps"], stored["conv_gflops"]) > 0


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
        ("/dev/null/cache", [], "peak rates are stored there; set XDG_CACHE_HOME"),
        ("", ["--json", "/dev/null/more/c.json"], "choose another output folder"),
        ("", ["--json", "/dev"], "is a folder; name the file to write"),
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
    assert printed.err.startswith("error: /dev")
    assert message in printed.err
    assert not printed.out
    assert not list(tmp_path.rglob("ceilings.json"))


@pytest.mark.parametrize("damaged", ["", '{"cpu:float32": {"matmul', "[1]", "[" * 100_000])
def test_a_damaged_file_of_peak_rates_is_replaced(damaged: str) -> None:
    path = store_peak_rates("cpu", {"dtype": "float32"})
    path.write_text(damaged)
    store_peak_rates("cpu", {"dtype": "bfloat16"})
    store_peak_rates("cpu:0", {"dtype": "float32"})  # a report asks for the kind of device
    assert sorted(json.loads(path.read_text())) == ["cpu:bfloat16", "cpu:float32"]
