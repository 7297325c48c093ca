"""The scripted policies cover every key, every obstacle, junctions, waiting and mistakes."""

from collections import Counter

import numpy as np
import pytest

from glassworld.training.sources.runner.course import KEYS, Obstacle, Travel, move, start_state
from glassworld.training.sources.runner.policies import POLICIES

EPISODES, MOVES = 120, 30


def counts(name: str) -> tuple[Counter[str], Counter[Travel], Counter[tuple[Obstacle, Travel]]]:
    """Return how often a policy presses keys, travels, and passes or hits obstacles."""
    keys: Counter[str] = Counter()
    travels: Counter[Travel] = Counter()
    obstacles: Counter[tuple[Obstacle, Travel]] = Counter()
    for episode in range(EPISODES):
        policy = POLICIES[name][0](np.random.default_rng(episode))
        key, state = next(policy), start_state(episode)
        for _ in range(MOVES):
            step = move(state, key)
            keys[key] += 1
            travels[step.travel] += 1
            row = state.row_ahead
            if row is not None and step.travel in (Travel.RUN, Travel.HIT):
                obstacles[row.obstacle, step.travel] += 1
            state = step.after
            key = policy.send(state)
    return keys, travels, obstacles


def test_shares_sum_to_one() -> None:
    assert sum(share for _, share in POLICIES.values()) == pytest.approx(1)


def test_skilled_passes_obstacles_and_turns_in_time() -> None:
    keys, travels, obstacles = counts("skilled")
    assert all(keys[key] > 0.03 * EPISODES * MOVES for key in KEYS)
    assert travels[Travel.BUMP] == 0
    for obstacle in Obstacle:
        assert obstacles[obstacle, Travel.RUN] > 4 * obstacles[obstacle, Travel.HIT]


def test_all_policies_together_cover_successes_and_mistakes() -> None:
    travels: Counter[Travel] = Counter()
    obstacles: Counter[tuple[Obstacle, Travel]] = Counter()
    for name, (_, share) in POLICIES.items():
        _, own_travels, own_obstacles = counts(name)
        for travel, count in own_travels.items():
            travels[travel] += round(100 * share * count)
        obstacles += own_obstacles
    standing = (travels[Travel.WAIT] + travels[Travel.BUMP]) / travels.total()
    assert 0.03 < standing < 0.12
    assert travels[Travel.TURN_IN] > 0.05 * travels.total()
    assert travels[Travel.HIT] > 0.02 * travels.total()
    for obstacle in Obstacle:
        for travel in (Travel.RUN, Travel.HIT):
            assert obstacles[obstacle, travel] > 20


def test_policy_repeats_with_its_seed() -> None:
    for policy, _ in POLICIES.values():
        runs = []
        for _ in range(2):
            script, state = policy(np.random.default_rng(7)), start_state(1)
            key = next(script)
            keys = [key]
            for _ in range(40):
                state = move(state, key).after
                key = script.send(state)
                keys.append(key)
            runs.append(keys)
        assert runs[0] == runs[1]
