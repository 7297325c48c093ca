"""The table shows what was measured, and nothing else."""

from __future__ import annotations

from rich.console import Console

from glassworld.bench.section_runner import Figures
from glassworld.bench.tables import print_benchmark


def printed(figures: Figures) -> str:
    console = Console(record=True, width=100)
    print_benchmark(figures, console)
    return console.export_text()


def test_table_shows_the_figures(figures: Figures) -> None:
    text = printed(figures)
    assert f"{figures['fps_median']:.1f}" in text
    assert f"{figures['peak_memory_mb']:.0f} MB" in text
    assert "1 session " in text
    assert "2 sessions " in text


def test_table_of_an_interrupted_benchmark_shows_the_finished_sections(figures: Figures) -> None:
    finished = ("config", "first_frames_s", "weights_mb", "session_mb", "peak_memory_mb")
    text = printed({name: figures[name] for name in finished})
    assert "process start to first frames" in text
    assert "frames per second" not in text
    assert "1 session " not in text


def test_matmuls_hidden_in_graphs_are_shown_as_not_measured(figures: Figures) -> None:
    assert "captured graphs hide them" in printed({**figures, "products": None})
