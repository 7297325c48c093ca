from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tiny

gymnasium = pytest.importorskip("gymnasium")

from gymnasium.utils.env_checker import check_env  # noqa: E402

from glassworld.errors import InputError  # noqa: E402
from glassworld.gym import WorldEnv  # noqa: E402


@pytest.fixture
def env() -> WorldEnv:
    return WorldEnv(tiny.world(), tiny.picture(), "rgb_array")


def test_gymnasiums_own_checker(env: WorldEnv) -> None:
    check_env(env, skip_render_check=True)


def test_one_action_at_a_time_where_the_mode_says_so() -> None:
    changed = {"action": replace(tiny.DIT.action, keyboard_dim=7, mouse_dim=0)}
    env = WorldEnv(tiny.world(mode="templerun", dit=changed), tiny.picture())
    assert env.action_space == gymnasium.spaces.Discrete(7)
    check_env(env, skip_render_check=True)


def test_a_step_is_a_block(env: WorldEnv) -> None:
    frame, info = env.reset(seed=1)
    assert frame.shape == (32, 48, 3)
    assert info["frames"].shape == (1, 32, 48, 3)
    action = {"keyboard": np.array([1, 0, 0, 0], np.int8), "mouse": np.array([0, 0.1], np.float32)}
    frame, reward, terminated, truncated, info = env.step(action)
    assert (reward, terminated, truncated) == (0.0, False, False)
    assert info["frames"].shape == (9, 32, 48, 3)
    assert env.step(action)[4]["frames"].shape == (12, 32, 48, 3)
    np.testing.assert_array_equal(frame, info["frames"][-1])
    assert env.render() is not None


def test_it_is_the_session(env: WorldEnv) -> None:
    """The same frames as the session itself gives."""
    _, info = env.reset(seed=4)
    idle = {"keyboard": np.zeros(4, np.int8), "mouse": np.zeros(2, np.float32)}
    frames = [env.step(idle)[4]["frames"] for _ in range(2)]
    session = env.world.start(tiny.picture(), info["seed"])
    for made in frames:
        np.testing.assert_array_equal(session.step(env.world.space.press(())), made)


def test_it_is_registered() -> None:
    made = gymnasium.make("glassworld/World-v0", world=tiny.world(), picture=tiny.picture())
    made.reset(seed=0)
    made.close()


def test_step_before_reset(env: WorldEnv) -> None:
    with pytest.raises(InputError, match="reset"):
        env.step({"keyboard": np.zeros(4, np.int8), "mouse": np.zeros(2, np.float32)})
