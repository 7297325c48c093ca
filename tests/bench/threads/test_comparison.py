"""The comparison of numbers of threads: its numbers, its processes and its figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from glassworld.bench.tables import section_summary
from glassworld.bench.threads.comparison import (
    automatic_share,
    compare_threads,
    fixed_counts,
    summarize_condition,
)
from tests.support.release import write_release


def request(folder: Path) -> dict[str, Any]:
    """Write a small world and an image, and return what a process needs to measure them."""
    (folder / "world").mkdir()
    flags = write_release(folder / "world")
    Image.fromarray(np.full((64, 96, 3), 128, np.uint8)).save(folder / "gray.png")
    world = {"config_path": flags[1], "pretrained_model_path": flags[3], "device": "cpu"}
    picture = str(folder / "gray.png")
    return {"world": world, "accelerate": [], "picture": picture, "seconds": 0.05}


@pytest.mark.parametrize(
    ("cores", "counts"), [(1, [1]), (2, [1, 2]), (6, [1, 3, 6]), (16, [1, 2, 4, 8, 16])]
)
def test_fixed_counts_halve_the_cores(cores: int, counts: list[int]) -> None:
    assert fixed_counts(cores) == counts


def test_automatic_share_is_of_the_best_fixed_number() -> None:
    fps = {"1": 20.0, "2": 5.0, "automatic": 18.0}
    assert automatic_share(fps) == pytest.approx(0.9)
    line = summarize_condition({"live": fps})
    assert line == "live 20.0 (1), 5.0 (2), 18.0 (automatic), 90 % of the best"


def test_threads_of_a_gpu_are_not_compared() -> None:
    assert section_summary("threads", {"threads": None}) == "threads: not measured: a GPU computes"


@pytest.mark.slow
def test_compare_threads_measures_every_kind_and_number(tmp_path: Path) -> None:
    lines: list[str] = []
    figures = compare_threads(request(tmp_path), [1], lines.append, rounds=1)
    assert list(figures) == ["idle", "busy"]
    for by_kind in figures.values():
        assert list(by_kind) == ["generate", "live"]
        for fps in by_kind.values():
            assert list(fps) == ["1", "automatic"]
            assert min(fps.values()) > 0
    assert [line.split(": ")[1] for line in lines] == ["idle", "busy"]
    assert json.loads(json.dumps(figures)) == figures


@pytest.mark.slow
def test_compare_threads_of_a_missing_world_says_what_its_process_said(tmp_path: Path) -> None:
    missing = request(tmp_path) | {"picture": str(tmp_path / "missing.png")}
    with pytest.raises(RuntimeError, match=r"(?s)process of the threads failed: .*missing\.png"):
        compare_threads(missing, [1], lambda line: None, rounds=1)
