"""Score the seven keys of the runner: whether a world shows what each of them does.

A world plays some blocks of a held-out course beside the simulator, until every key makes a
difference: in the air, for example, some do not. Then each key is held for one block in the same
state, and the world's frames are compared with what each key does there.
"""

from collections.abc import Mapping
from itertools import combinations, count
from typing import Any

import numpy as np
from PIL import Image

from glassworld.engine.actions.track import Action
from glassworld.engine.world import World
from glassworld.progress import show_progress
from glassworld.training.eval.metrics import share_interval
from glassworld.training.eval.sessions import EvalConfig
from glassworld.training.sources.run import Outcome, RunSource, key_outcomes, shows_key
from glassworld.training.sources.runner.course import KEYS, Key

KEY_SEED_OFFSET = 7_000
FIRST_BLOCKS, MOST_BLOCKS = 12, 48
"""Most blocks that are played in any case, and until the keys make a difference."""


def score_keys(world: World, source: RunSource, config: EvalConfig) -> dict[str, Any]:
    """Score each key in one state of each of `config.starts` held-out courses.

    Returns
    -------
    The share of right answers by key and over all keys (`all`), their `intervals_95`, and the
    number of `cases` of each key.
    """
    right: dict[str, list[bool]] = {key: [] for key in KEYS}
    space = source.format.space
    for index in show_progress(range(config.starts), "trying keys", config.starts):
        rng = np.random.default_rng((config.seed, 2, index))
        start_image = source.reset(config.seed + KEY_SEED_OFFSET + index)
        session = world.start(Image.fromarray(start_image))
        policy = source.policy(rng)
        wanted = 1 + int(rng.integers(FIRST_BLOCKS))  # the first block is the start image
        for block in count():
            if block >= wanted:
                outcomes = key_outcomes(source.state)
                if _all_matter(outcomes) or block == MOST_BLOCKS:
                    break
            action = Action(next(policy).keyboard)
            source.step(action)
            session.step(action)
        before = session.save()
        for key in KEYS:
            right[key].append(shows_key(session.step(space.press(key)), key, outcomes))
            session.restore(before)
    pooled = {**right, "all": [answer for answers in right.values() for answer in answers]}
    return {
        **{key: round(float(np.mean(answers)), 3) for key, answers in pooled.items()},
        "intervals_95": {
            key: share_interval(sum(answers), len(answers)) for key, answers in pooled.items()
        },
        "cases": config.starts,
    }


def _all_matter(outcomes: Mapping[Key, Outcome]) -> bool:
    """Tell whether no key shows what another one does."""
    return not any(
        shows_key(outcomes[key].frames, other, outcomes) for key, other in combinations(outcomes, 2)
    )
