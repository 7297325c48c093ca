"""The runner as a source: blocks, determinism, what each key does to the state and the image."""

from dataclasses import replace

import numpy as np
import pytest

from glassworld.engine.actions.track import Action
from glassworld.engine.variants.registry import action_space
from glassworld.errors import ActionError
from glassworld.training.sources import open_source
from glassworld.training.sources.run import RunSource, key_outcomes, shows_key
from glassworld.training.sources.runner.course import KEYS, RunState, move, start_state

SPACE = action_space("templerun")
IDLE = SPACE.press("nomove")
JUMP = SPACE.press("jump")


def free_state(lane: int = 0) -> RunState:
    """Return a state with nothing to hit in the next move."""
    return replace(start_state(3), cell=1, lane=lane)


def test_keys_are_those_of_the_mode() -> None:
    assert SPACE.keyboard == KEYS


def test_first_block_is_the_start_image_and_others_have_four_frames() -> None:
    source = open_source("run", seed=7)
    start_image = source.reset()
    assert start_image.shape == (64, 96, 3)
    assert start_image.dtype == np.uint8
    first, second = source.step(JUMP), source.step(JUMP)
    assert (first == start_image[None]).all()
    assert second.shape == (4, 64, 96, 3)
    assert all((frame != start_image).any() for frame in second)


def test_same_seed_and_keys_give_the_same_frames() -> None:
    def frames(source: RunSource) -> np.ndarray:
        return np.concatenate([source.step(SPACE.press(key)) for key in KEYS])

    one, other = RunSource(seed=3), RunSource(seed=4)
    one.reset()
    other.reset()
    assert (one.start_image != other.start_image).any()
    other.reset(3)
    assert (frames(one) == frames(other)).all()
    assert one.state == other.state
    assert one.pose == other.pose


@pytest.mark.parametrize("count", [0, 2, 4, 8])
def test_advance_refuses_another_number_of_keys_in_one_line(count: int) -> None:
    with pytest.raises(ActionError, match=f"keyboard has {count} keys") as error:
        RunSource().advance((0.0,) * count)
    assert "\n" not in str(error.value)


def test_key_is_read_once_per_move() -> None:
    one, other = RunSource(5), RunSource(5)
    one.reset()
    other.reset()
    for frame in range(4):
        held = JUMP if frame == 0 else IDLE
        assert (one.advance(JUMP.keyboard) == other.advance(held.keyboard)).all()


def test_no_key_at_all_runs_on() -> None:
    one, other = RunSource(5), RunSource(5)
    one.reset()
    other.reset()
    assert (one.advance((0.0,) * 7) == other.advance(IDLE.keyboard)).all()


def test_pose_shows_what_keys_do() -> None:
    source = RunSource()

    def pose_after(key: str, frames: int = 4) -> tuple[float, ...]:
        source.resume(free_state())
        for _ in range(frames):
            source.advance(SPACE.press(key).keyboard)
        return source.pose

    assert pose_after("nomove")[:3] == (0, 0, 0)
    assert pose_after("leftside")[0] == -1
    assert pose_after("rightside")[0] == 1
    assert pose_after("jump")[1] == 2
    assert pose_after("slide")[2] == 2
    left, right = pose_after("turnleft", 2), pose_after("turnright", 2)
    assert left[3:5] != right[3:5] != pose_after("nomove", 2)[3:5]
    assert pose_after("nomove")[5] < pose_after("nomove", 0)[5] or source.state.cell == 2


def test_every_key_changes_the_image_at_once_and_in_its_own_way() -> None:
    for seed in range(4):  # each with another sky
        outcomes = key_outcomes(replace(free_state(), seed=seed))
        for key in KEYS:
            for other in KEYS[: KEYS.index(key)]:
                one, two = outcomes[key].frames.astype(float), outcomes[other].frames
                assert np.abs(one[0] - two[0]).mean() > 1.5, (key, other)
                assert np.abs(one - two).mean() > 3, (key, other)


def test_shows_key_recognizes_noisy_frames_of_the_key_alone() -> None:
    rng = np.random.default_rng(0)
    source = RunSource(1)
    for _ in range(4):
        source.reset()
        outcomes = key_outcomes(source.state)
        key, other = (KEYS[int(index)] for index in rng.choice(7, 2, replace=False))
        noise = rng.normal(0, 12, outcomes[key].frames.shape)
        frames = np.clip(outcomes[key].frames + noise, 0, 255).astype(np.uint8)
        assert shows_key(frames, key, outcomes)
        looks_alike = (outcomes[key].frames == outcomes[other].frames).all()
        assert shows_key(frames, other, outcomes) == looks_alike


def test_shows_key_takes_outcomes_that_look_alike_as_one() -> None:
    in_air = move(free_state(), "jump").after
    outcomes = key_outcomes(in_air)
    assert shows_key(outcomes["nomove"].frames, "jump", outcomes)
    assert not shows_key(outcomes["nomove"].frames, "slide", outcomes)


def test_outcomes_are_what_the_source_shows() -> None:
    source = RunSource(2)
    source.reset()
    source.step(IDLE)
    for key in ("jump", "leftside", "nomove"):
        outcome = key_outcomes(source.state)[key]
        assert (source.step(SPACE.press(key)) == outcome.frames).all()
        assert source.state == outcome.move.after


def test_mismatched_keys_lead_elsewhere() -> None:
    source = RunSource()
    for key in KEYS:
        action = SPACE.press(key)
        other = source.mismatched(action)
        assert other != action
        assert sum(other.keyboard) == 1
    assert source.mismatched(SPACE.press("turnleft")) == SPACE.press("turnright")


def test_action_pairs_differ_after_a_second() -> None:
    source = RunSource()
    for pair in source.action_pairs.values():
        views = []
        for action in (pair.one, pair.other):
            source.reset(9)
            actions = [pair.before] * 2 + [action] * 2
            views.append(np.concatenate([source.step(step) for step in actions]))
        assert (views[0] != views[1]).any()


def test_policy_yields_one_key_of_the_mode_for_one_move() -> None:
    source = RunSource(4)
    source.reset()
    inputs = source.policy(np.random.default_rng(0))
    for _ in range(10):
        held = next(inputs)
        assert held.length == 1
        assert held.mouse is None
        assert sum(held.keyboard) == 1
        source.step(Action(held.keyboard))


def test_good_starts_have_a_way_to_go_and_show_the_runner() -> None:
    source = RunSource(8)
    good = []
    for _ in range(40):
        source.reset()
        good.append(source.is_good_start)
        if source.is_good_start:
            assert source.state.corridor.length - source.state.cell > 5
            passed = source.state.cell - 1
            assert all(row.cell != passed for row in source.state.corridor.rows)
    assert any(good)
    assert not all(good)
