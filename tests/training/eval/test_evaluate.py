"""Evaluation: a world that is the simulator gets full marks, its mirror image none."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from glassworld.cli import main
from glassworld.engine.actions.track import Action

pytest.importorskip("vizdoom")

from glassworld.training.cli import eval_app
from glassworld.training.eval.evaluate import OPPOSITE, Plan, choices, drift, following
from glassworld.training.sources.maze import Frame, MazeEnvironment

if TYPE_CHECKING:
    from glassworld.engine.world import World

PLAN = Plan(starts=2, blocks=2, drift_starts=1, drift_blocks=6)


@dataclass
class TrueSession:
    simulator: MazeEnvironment
    mirrored: bool

    def step(self, action: Action) -> Frame:
        return self.simulator.step(OPPOSITE[action] if self.mirrored else action)


class TrueWorld:
    """Goes on in the simulator from pictures it knows; mirrored, it does the opposite."""

    def __init__(self, mirrored: bool = False) -> None:
        self.mirrored = mirrored
        self.seeds = {}
        for offset in (0, 5_000, 9_000):
            for seed in range(PLAN.seed + offset, PLAN.seed + offset + PLAN.starts):
                simulator = MazeEnvironment(seed)
                self.seeds[simulator.reset().tobytes()] = seed
                simulator.close()

    def start(self, picture: Image.Image) -> TrueSession:
        simulator = MazeEnvironment(self.seeds[np.asarray(picture).tobytes()])
        simulator.reset()
        return TrueSession(simulator, self.mirrored)


def world(mirrored: bool = False) -> World:
    return cast("World", TrueWorld(mirrored))


def test_the_simulator_itself_follows_its_actions() -> None:
    scores = following(world(), PLAN)
    assert scores["psnr"] == [60, 60]
    assert scores["ssim"] == pytest.approx([1, 1], abs=1e-3)
    assert max(scores["psnr_start_picture"]) < 60
    assert max(scores["psnr_wrong_actions"]) < 60
    mirrored = following(world(mirrored=True), PLAN)
    assert mirrored["psnr"] == scores["psnr_wrong_actions"]


def test_views_that_moved_are_scored_by_themselves() -> None:
    scores = following(world(), replace(PLAN, starts=1))
    for held, moved in zip(
        scores["psnr_start_picture"], scores["psnr_start_picture_moving"], strict=True
    ):
        assert moved == (held if held < 35 else None)


def test_choices_tell_right_from_wrong() -> None:
    plan = replace(PLAN, starts=1)
    right = choices(world(), plan)
    assert {right[name] for name in ("turn", "forward_back", "strafe", "turn_sign")} == {1.0}
    assert right["turn_size"] == pytest.approx(1)
    assert choices(world(mirrored=True), plan)["turn_sign"] == 0


def test_real_play_does_not_drift() -> None:
    simulator = MazeEnvironment(PLAN.seed + 9_000)
    simulator.reset()
    still = [simulator.step(Action((0, 0, 0, 0), (0, 0))) for _ in range(PLAN.drift_blocks)]
    simulator.close()
    scores = drift(world(), PLAN, np.concatenate(still))
    for row in scores.values():
        for end in ("first", "last"):
            for what in ("sharpness", "motion"):
                assert row[f"{end}_{what}"] == pytest.approx(row[f"true_{end}_{what}"], rel=0.01)
    standing = scores["standing"]
    assert max(standing["first_distance"], standing["last_distance"]) < 0.1
    assert standing["first_sharpness"] == pytest.approx(standing["real_sharpness"], rel=0.01)


def test_the_command_measures_the_embedded_world(tmp_path: Path) -> None:
    scores = tmp_path / "scores.json"
    strip, video = tmp_path / "strip.png", tmp_path / "both.mp4"
    given = ["--starts", "1", "--minutes", "1", "--json", scores, "--strip", strip]
    result = CliRunner().invoke(eval_app, [str(each) for each in (*given, "--video", video)])
    assert result.exit_code == 0, result.output
    assert "Following the keys" in result.output
    measured: dict[str, Any] = json.loads(scores.read_text())
    assert set(measured) == {"vae", "blocks", "actions", "drift"}
    assert measured["vae"]["psnr"] > 20
    blocks = measured["blocks"]
    assert len(blocks["psnr"]) == 10
    assert blocks["psnr"][0] > blocks["psnr_wrong_actions"][0]
    with Image.open(strip) as picture:
        assert picture.size == (12 * 96, 6 * 64)
    assert video.stat().st_size > 10_000


@pytest.mark.parametrize("option", ["--json", "--strip", "--video"])
def test_what_cannot_be_written_is_said_before_measuring(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", option, str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path}: is a folder; name the file to write\n"
