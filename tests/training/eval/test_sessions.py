"""Sessions of sources that end their episodes are compared for as long as they last."""

from pathlib import Path
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

pytest.importorskip("gymnasium")

from glassworld.engine.actions.track import Action
from glassworld.engine.world import World
from glassworld.errors import InputError
from glassworld.training.eval.drift import measure_drift
from glassworld.training.eval.evaluate import score_actions, score_blocks, side_by_side
from glassworld.training.eval.sessions import EvalConfig, play_script, scored_sessions, simulate
from glassworld.training.sources.gymnasium_env import open_gymnasium
from glassworld.training.sources.source import Frame, Source
from tests.support.square_env import MAPPING, register

CONFIG = EvalConfig(starts=2, seconds=5, drift_starts=2, drift_seconds=20)


class StillSession:
    """Repeats the start image, in blocks of one latent frame."""

    def __init__(self, image: Frame) -> None:
        self.image, self.first = image, True

    def step(self, _: Action) -> NDArray[np.uint8]:
        count, self.first = 1 if self.first else 4, False
        return np.repeat(self.image[None], count, 0)


class StillWorld:
    def start(self, image: Image.Image) -> StillSession:
        return StillSession(np.asarray(image))


STILL = cast("World", StillWorld())


@pytest.fixture
def ending(tmp_path: Path) -> Source:
    """Return a source that ends its episodes when the square is at the right edge."""
    register()
    (tmp_path / "keys.yaml").write_text(MAPPING)
    return open_gymnasium(f"glassworld-tests/Ending-v0@{tmp_path / 'keys.yaml'}")


def test_simulate_ends_with_the_episode(ending: Source) -> None:
    right = ending.format.space.press("right")
    frames = simulate(ending, 0, [right] * 30)
    assert len(frames) < 30 * 4 - 3
    assert (frames[-1] != frames[-6]).any()  # no new episode has begun


def test_scored_sessions_leave_out_starts_that_end_too_early(ending: Source) -> None:
    sessions = list(scored_sessions(ending, CONFIG, 6))
    assert [len(truth) for _, truth in sessions] == [57] * 6
    lengths = []
    for index in range(6):
        rng = np.random.default_rng((CONFIG.seed, index))
        lengths.append(len(play_script(ending, CONFIG.seed + index, rng, CONFIG.seconds)[1]))
    assert min(lengths) < 57


def test_scored_sessions_without_any_that_last_is_an_error(
    ending: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(ending), "ended", True)
    with pytest.raises(InputError, match="eval: only 0 of 20 episodes last 5 s; use a source"):
        list(scored_sessions(ending, CONFIG, 1))


def test_evaluation_compares_sessions_as_long_as_they_last(ending: Source) -> None:
    lengths = []
    score_blocks(STILL, ending, CONFIG)
    score_actions(STILL, ending, CONFIG)
    real = simulate(ending, 0, [ending.format.idle] * 3)
    measure_drift(
        STILL, ending, CONFIG, real, lambda _, *pair: lengths.append(tuple(map(len, pair)))
    )
    assert all(truth == generated for truth, generated in lengths)
    assert min(lengths) < (237, 237) == max(lengths)  # one at least ended, one at rest did not
    for truth, generated in side_by_side(STILL, ending, CONFIG):
        assert truth.shape == generated.shape
