"""Sections of a benchmark: run in order, printed and stored one by one.

A benchmark takes minutes. Whoever stops it early, or runs out of time, keeps every section that
has finished.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from glassworld.files import replacing

Figures = dict[str, Any]
Report = Callable[[str], object]

NAME_WIDTH = 20


class TimeBudget:
    """Seconds that a benchmark may take, counted from now; infinite if None."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = math.inf if seconds is None else seconds
        self._began = time.perf_counter()

    @property
    def left(self) -> float:
        """Seconds left, negative once the time is up."""
        return self.seconds - (time.perf_counter() - self._began)

    def repeats(self, fewest: int, most: int, seconds_each: float, share: float) -> int:
        """Return how often to repeat what takes `seconds_each`, within a share of the budget."""
        affordable = share * self.seconds / seconds_each
        return most if affordable >= most else max(fewest, int(affordable))


@dataclass(frozen=True)
class BenchSection:
    """One part of a benchmark: `measure` returns figures, `summarize` puts them into a line."""

    name: str
    measure: Callable[[], Figures]
    summarize: Callable[[Figures], str] = lambda figures: ""
    requested: bool = False  # by a flag: runs also when the time is up


class SectionRunner:
    """Runs sections, and prints and stores the figures of each as soon as it has finished."""

    def __init__(
        self, console: Console, budget: TimeBudget, json_file: Path | None, spinner: bool = True
    ) -> None:
        self.figures: Figures = {}
        self.interrupted = False
        self._console, self._budget, self._json_file = console, budget, json_file
        self._spinner = spinner and console.is_terminal

    def report(self, text: str) -> None:
        """Print a line at once, also where nobody watches a terminal."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)
        self._console.file.flush()

    def run(self, sections: Sequence[BenchSection]) -> None:
        """Run the sections in order, until Ctrl-C or until the time is up.

        What is finished is in `figures` and in the JSON file, `interrupted` says whether Ctrl-C
        was pressed.
        """
        finished: list[str] = []
        for section in sections:
            if self._budget.left <= 0 and not section.requested:
                self.report(f"{section.name:<{NAME_WIDTH}} skipped: the time is up")
                continue
            try:
                self._run(section)
            except KeyboardInterrupt:
                self.interrupted = True
                kept = ", ".join(finished) or "nothing"
                self.report(f"interrupted during {section.name}; finished and kept: {kept}")
                return
            finished.append(section.name)

    def _run(self, section: BenchSection) -> None:
        began = time.perf_counter()
        with self._console.status(section.name) if self._spinner else nullcontext():
            self.figures |= section.measure()
        self._write()
        seconds = time.perf_counter() - began
        line = f"{section.name:<{NAME_WIDTH}} {seconds:5.1f} s  {section.summarize(self.figures)}"
        self.report(line.rstrip())

    def _write(self) -> None:
        if self._json_file is not None:
            with replacing(self._json_file) as partial:
                partial.write_text(json.dumps(self.figures, indent=1), encoding="utf-8")
