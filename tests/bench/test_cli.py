"""`glassworld bench run` as a person calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from glassworld.bench.benchmark import Benchmark
from glassworld.bench.section_runner import BenchSection, Figures
from glassworld.cli import main
from tests.support.paths import A_FILE

CONFIG = {"world": "maze", "device": "cpu", "dtype": "float32"}


@pytest.fixture
def sections(monkeypatch: pytest.MonkeyPatch) -> list[BenchSection]:
    """Replace the sections of the next benchmark; return the list of them."""
    replaced: list[BenchSection] = [BenchSection("world", lambda: {"config": CONFIG})]
    monkeypatch.setattr(Benchmark, "sections", lambda _: replaced)
    return replaced


def test_ctrl_c_keeps_the_finished_sections_and_exits_with_130(
    sections: list[BenchSection], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt() -> Figures:
        raise KeyboardInterrupt

    sections.append(BenchSection("steady state", interrupt))
    path = tmp_path / "figures.json"
    assert main(["bench", "run", "--compare", "--json", str(path)]) == 130
    assert json.loads(path.read_text()) == {"config": CONFIG}
    printed = capsys.readouterr().out
    assert "interrupted during steady state; finished and kept: world" in printed
    assert "maze, float32 on cpu" in printed


@pytest.mark.parametrize(("speedup", "code"), [(4.0, 0), (2.0, 1)])
def test_compare_exits_with_1_if_the_program_became_slower(
    sections: list[BenchSection],
    speedup: float,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    baseline = {
        **CONFIG,
        "machine": {"processor": "a processor"},
        "ratios": {
            "transformer, share of the matmul peak": 1.0,
            "decoder, share of the convolution peak": 1.0,
            "speedup over the eager baseline": 4.0,
        },
    }
    monkeypatch.setattr("glassworld.bench.regression.read_baseline", lambda: baseline)
    points = [{"tag": tag, "gflop": 1.0, "ms": 1.0} for tag in ("VAE_Decode", "Layer")]
    rates = {"matmul_gflops": 1e3, "conv_gflops": 1e3, "copy_gbps": 1.0}
    dtypes = {"dtype": "float32", "conv_dtype": "float32"}
    figures = {"ceilings": {**rates, **dtypes}, "roofline": points, "speedup": speedup}
    sections.append(BenchSection("roofline", lambda: figures))
    assert main(["bench", "run", "--compare"]) == code


def test_a_file_that_cannot_be_written_is_refused_before_anything_runs(
    sections: list[BenchSection], capsys: pytest.CaptureFixture[str]
) -> None:
    sections[:] = [BenchSection("world", pytest.fail)]
    assert main(["bench", "run", "--json", f"{A_FILE}/more/f.json"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {A_FILE / 'more'}")


def test_compare_measures_the_world_of_the_baseline(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    baseline = {**CONFIG, "world": "nowhere"}
    monkeypatch.setattr("glassworld.bench.regression.read_baseline", lambda: baseline)
    assert main(["bench", "run", "--device", "cpu", "--compare"]) == 2
    assert "world 'nowhere': no such world" in capsys.readouterr().err
