"""One benchmark of the tiny world, for all tests of the bench that look at its figures."""

from __future__ import annotations

import io
from pathlib import Path
from typing import NamedTuple

import pytest
from rich.console import Console

from glassworld.bench.benchmark import Benchmark, BenchmarkOptions, write_plots
from glassworld.bench.section_runner import Figures, SectionRunner, TimeBudget
from glassworld.engine.checkpoint.options import LoadOptions
from tests.support.bench import use_small_peak_rates
from tests.support.release import write_release


class BenchmarkRun(NamedTuple):
    """What a benchmark measured, what it printed, and the folder of its files."""

    figures: Figures
    output: str
    folder: Path


@pytest.fixture(scope="session")
def benchmark_run(tmp_path_factory: pytest.TempPathFactory) -> BenchmarkRun:
    folder = tmp_path_factory.mktemp("bench")
    (folder / "world").mkdir()
    flags = write_release(folder / "world")
    load = LoadOptions(
        config_path=flags[1],
        pretrained_model_path=flags[3],
        device="cpu",
        vae_compile_mode="none",
        accelerate=("attention",),
    )
    options = BenchmarkOptions(load, blocks=6, sessions=(1, 2), scaling=True)
    output, budget = io.StringIO(), TimeBudget(600)
    runner = SectionRunner(Console(file=output, width=200), budget, folder / "figures.json")
    with pytest.MonkeyPatch.context() as patch:
        use_small_peak_rates(patch, folder)
        runner.run(Benchmark(options, budget, folder, runner.report).sections())
    write_plots(runner.figures, folder)
    return BenchmarkRun(runner.figures, output.getvalue(), folder)


@pytest.fixture(scope="session")
def figures(benchmark_run: BenchmarkRun) -> Figures:
    return benchmark_run.figures
