"""Sections are printed and stored one by one, and end in time."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

from rich.console import Console

from glassworld.bench.section_runner import BenchSection, Figures, SectionRunner, TimeBudget


def runner_for(path: Path, seconds: float | None = None) -> tuple[SectionRunner, io.StringIO]:
    output = io.StringIO()
    return SectionRunner(Console(file=output), TimeBudget(seconds), path), output


def interrupt() -> Figures:
    raise KeyboardInterrupt


def test_finished_sections_are_stored_before_the_next_one_begins(tmp_path: Path) -> None:
    path, stored = tmp_path / "figures.json", []
    runner, output = runner_for(path)

    def second() -> Figures:
        stored.append((json.loads(path.read_text()), output.getvalue()))
        return {"b": 2}

    first = BenchSection("first", lambda: {"a": 1}, lambda figures: f"a is {figures['a']}")
    runner.run([first, BenchSection("second", second)])
    figures, printed = stored[0]
    assert figures == {"a": 1}
    assert "first" in printed
    assert "a is 1" in printed
    assert json.loads(path.read_text()) == runner.figures == {"a": 1, "b": 2}
    assert not runner.interrupted


def test_an_interrupt_keeps_the_finished_sections_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    runner, output = runner_for(path)
    sections = [BenchSection("speed", lambda: {"a": 1}), BenchSection("latency", interrupt)]
    runner.run([*sections, BenchSection("memory", lambda: {"c": 3})])
    assert runner.interrupted
    assert json.loads(path.read_text()) == {"a": 1}
    assert "interrupted during latency; finished and kept: speed" in output.getvalue()
    assert list(tmp_path.iterdir()) == [path]


def test_sections_after_the_time_budget_are_skipped(tmp_path: Path) -> None:
    runner, output = runner_for(tmp_path / "figures.json", seconds=0)
    runner.run([BenchSection("speed", interrupt)])
    assert not runner.figures
    assert not runner.interrupted
    assert "speed                skipped: the time is up" in output.getvalue()


def test_repeats_fit_into_their_share_of_the_budget() -> None:
    budget = TimeBudget(100)
    assert budget.repeats(6, 60, seconds_each=0.1, share=0.5) == 60
    assert budget.repeats(6, 60, seconds_each=2, share=0.5) == 25
    assert budget.repeats(6, 60, seconds_each=50, share=0.5) == 6
    assert TimeBudget(None).repeats(6, 60, seconds_each=50, share=0.5) == 60
    assert TimeBudget(None).left == math.inf
