"""The keys of the runner: the simulator is right, a world that always runs on is not."""

from __future__ import annotations

from copy import copy
from typing import cast

import pytest
from PIL import Image

from glassworld.engine.actions.track import Action
from glassworld.engine.variants.registry import action_space
from glassworld.engine.world import World
from glassworld.training.eval.keys import score_keys
from glassworld.training.eval.sessions import EvalConfig
from glassworld.training.sources.run import RunSource
from glassworld.training.sources.runner.course import KEYS
from glassworld.training.sources.source import Frame

CONFIG = EvalConfig(starts=2)
ON = action_space("templerun").press("nomove")


class RunnerWorld:
    """The simulator as a world, which may run on whatever is pressed after its first blocks."""

    def __init__(self, source: RunSource, deaf: bool) -> None:
        self.source, self.deaf, self.saved = source, deaf, False

    def start(self, start_image: Image.Image) -> RunnerWorld:
        self.simulator, self.saved = copy(self.source), False  # at the same place
        return self

    def step(self, action: Action) -> Frame:
        return self.simulator.step(ON if self.deaf and self.saved else action)

    def save(self) -> RunSource:
        self.saved = True
        return copy(self.simulator)

    def restore(self, state: RunSource) -> None:
        self.simulator = copy(state)


def test_score_keys_of_the_simulator_is_perfect() -> None:
    source = RunSource()
    scores = score_keys(cast(World, RunnerWorld(source, deaf=False)), source, CONFIG)
    assert {scores[key] for key in (*KEYS, "all")} == {1.0}
    assert scores["cases"] == 2
    assert scores["intervals_95"]["jump"] == [0.342, 1.0]  # two of two
    assert scores["intervals_95"]["all"][0] > 0.75  # 14 of 14


@pytest.mark.slow  # draws every outcome of every key
def test_score_keys_of_a_world_that_runs_on_is_right_for_nomove_alone() -> None:
    source = RunSource()
    scores = score_keys(cast(World, RunnerWorld(source, deaf=True)), source, CONFIG)
    assert scores["nomove"] == 1
    assert scores["all"] == round(1 / 7, 3)
