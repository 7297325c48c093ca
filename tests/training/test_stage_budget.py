"""How a training divides its minutes."""

import math
from pathlib import Path

import pytest

from glassworld.errors import InputError
from glassworld.training.stage_budget import EXPORT_SHARE, LEAST_SHARE, StageBudget


def test_stage_budget_gives_the_transformer_what_other_stages_left(tmp_path: Path) -> None:
    budget = StageBudget(tmp_path / "clock.json", 10)
    budget.spent = {"episodes": 30.0, "VAE": 150.0, "transformer": 100.0}
    assert budget.limit("transformer") == pytest.approx(600 * (1 - EXPORT_SHARE) - 180)
    budget.spent["VAE"] = 1000.0
    assert budget.limit("transformer") == pytest.approx(600 * LEAST_SHARE)


def test_stage_budget_adds_up_the_runs_of_a_stage(tmp_path: Path) -> None:
    path = tmp_path / "clock.json"

    def interrupt() -> None:
        with StageBudget(path, None).stage("VAE") as seconds:
            assert seconds is None
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    first = StageBudget(path, None).spent["VAE"]
    with StageBudget(path, None).stage("VAE"):
        pass
    assert StageBudget(path, None).spent["VAE"] >= first > 0


@pytest.mark.parametrize("minutes", [0.0, -1.0, math.inf, math.nan])
def test_stage_budget_refuses_minutes_that_are_no_length(tmp_path: Path, minutes: float) -> None:
    with pytest.raises(InputError, match=f"minutes is {minutes:g}: it must be a positive number"):
        StageBudget(tmp_path / "clock.json", minutes)


@pytest.mark.parametrize("content", ["{", "[]", "null", "3", '{"VAE": "long"}'])
def test_stage_budget_refuses_a_damaged_file(tmp_path: Path, content: str) -> None:
    path = tmp_path / "clock.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"clock\.json: damaged"):
        StageBudget(path, 1)
