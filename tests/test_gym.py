"""The Gymnasium environment."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support import tiny
from tests.support.paths import ROOT

gymnasium = pytest.importorskip("gymnasium")

from gymnasium.envs.registration import EnvSpec, load_env_creator  # noqa: E402
from gymnasium.utils.env_checker import check_env  # noqa: E402

from glassworld.engine.checkpoint.load import load_world  # noqa: E402
from glassworld.engine.checkpoint.locate import embedded_worlds  # noqa: E402
from glassworld.engine.runtime.threads import using_threads  # noqa: E402
from glassworld.errors import ActionError, InputError  # noqa: E402
from glassworld.gym import WorldEnv, WorldVectorEnv  # noqa: E402


@pytest.fixture
def env() -> WorldEnv:
    return WorldEnv(tiny.world(), tiny.picture(), "rgb_array")


def with_actions(**action: Any) -> dict[str, object]:
    """Return a change of the tiny world's transformer: the action sizes of another mode."""
    return {"action": replace(tiny.DIT.action, **action)}


IDLE = {"keyboard": np.zeros(4, np.int8), "mouse": np.zeros(2, np.float32)}

MODES = {
    "universal": {},
    "gta_drive": with_actions(keyboard_dim=2),
    "templerun": with_actions(keyboard_dim=7, mouse_dim=0),
}


@pytest.mark.parametrize("mode", MODES)
def test_environment_passes_the_checker_of_gymnasium(mode: str) -> None:
    world = tiny.world(mode=mode, dit=MODES[mode])
    env = gymnasium.make(
        "glassworld/World-v0", world=world, image=tiny.picture(), render_mode="rgb_array"
    )
    check_env(env.unwrapped)
    env.close()


def test_action_space_depends_on_the_mode() -> None:
    spaces = {
        mode: WorldEnv(tiny.world(mode=mode, dit=changes)).action_space
        for mode, changes in MODES.items()
    }
    assert spaces["universal"]["keyboard"] == gymnasium.spaces.MultiBinary(4)
    assert spaces["gta_drive"]["keyboard"] == gymnasium.spaces.MultiBinary(2)
    assert spaces["gta_drive"]["mouse"].shape == (2,)
    assert spaces["templerun"] == gymnasium.spaces.Discrete(7)


@pytest.mark.parametrize(
    ("mode", "action"),
    [
        ("universal", {"keyboard": np.zeros(3), "mouse": np.zeros(2)}),
        ("universal", {"keyboard": np.zeros(4), "mouse": np.array([2.0, 0.0])}),
        ("universal", {"keyboard": np.zeros(4), "mouse": np.array([np.nan, 0.0])}),
        ("universal", {"keyboard": np.zeros(4), "mouse": np.zeros(3)}),
        ("universal", {"keyboard": np.zeros(4), "mouse": np.zeros((2, 1))}),
        ("universal", {"keyboard": np.zeros(4), "mouse": np.array([0.1j, 0.0])}),
        ("universal", {"keyboard": np.zeros((4, 1)), "mouse": np.zeros(2)}),
        ("universal", {"keyboard": np.zeros((20, 20)), "mouse": np.zeros(2)}),
        ("universal", {"keyboard": np.array([2, 0, 0, 0]), "mouse": np.zeros(2)}),
        ("universal", {"keyboard": "1000", "mouse": np.zeros(2)}),
        ("universal", {"keyboard": [[0, 0], [0]], "mouse": np.zeros(2)}),
        ("universal", {"keyboard": None, "mouse": None}),
        ("universal", {"keyboard": np.zeros(4)}),
        ("universal", 3),
        ("templerun", 7),
        ("templerun", -1),
        ("templerun", {"keyboard": np.zeros(7)}),
        ("templerun", "jump"),
    ],
)
def test_action_outside_the_space_is_one_line_of_action_error(mode: str, action: object) -> None:
    env = WorldEnv(tiny.world(mode=mode, dit=MODES[mode]), tiny.picture())
    env.reset(seed=1)
    with pytest.raises(ActionError, match=r"is not in (Dict.*Box|Discrete)") as caught:
        env.step(action)
    assert "\n" not in str(caught.value)


def test_step_generates_one_block(env: WorldEnv) -> None:
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


def test_frames_are_those_of_the_session(env: WorldEnv) -> None:
    _, info = env.reset(seed=4)
    idle = {"keyboard": np.zeros(4, np.int8), "mouse": np.zeros(2, np.float32)}
    frames = [env.step(idle)[4]["frames"] for _ in range(2)]
    session = env.world.start(tiny.picture(), info["seed"])
    for expected in frames:
        np.testing.assert_array_equal(session.step(env.world.space.press(())), expected)


def test_reset_with_another_image_starts_from_it(env: WorldEnv) -> None:
    default, _ = env.reset(seed=1)
    frame, _ = env.reset(seed=1, options={"image": tiny.picture(64, 48)})
    assert frame.shape == default.shape
    assert not np.array_equal(frame, default)


def test_step_before_reset_or_after_close_is_an_input_error(env: WorldEnv) -> None:
    idle = {"keyboard": np.zeros(4, np.int8), "mouse": np.zeros(2, np.float32)}
    with pytest.raises(InputError, match="reset"):
        env.step(idle)
    env.reset(seed=1)
    env.close()
    with pytest.raises(InputError, match="reset"):
        env.step(idle)


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_make_vec_steps_environments_at_two_threads(mode: str, count: int) -> None:
    world = tiny.world()
    with using_threads(2):
        world.start(tiny.picture()).step(world.space.press("w"))  # starts the threads
        envs = gymnasium.make_vec(
            "glassworld/World-v0", count, mode, world=world, image=tiny.picture()
        )
        try:
            envs.reset(seed=1)
            if mode == "async":
                envs.step_async(envs.action_space.sample())
                frames = envs.step_wait(timeout=60)[0]
            else:
                frames = envs.step(envs.action_space.sample())[0]
                assert all(env.unwrapped.world is world for env in envs.envs)
        finally:
            envs.close(**({"terminate": True} if mode == "async" else {}))
    assert frames.shape == (count, 32, 48, 3)


def test_environments_share_the_embedded_weights_and_the_seed_chooses_the_image() -> None:
    first, second = WorldEnv(), WorldEnv()
    assert first.world is second.world
    starts = [first.reset(seed=seed)[0] for seed in range(6)]
    assert np.array_equal(second.reset(seed=3)[0], starts[3])
    assert any(not np.array_equal(start, starts[0]) for start in starts)


def test_world_of_a_folder_starts_from_its_own_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny.world().save("mine/world")
    (tmp_path / "mine" / "world" / "pictures").mkdir()
    image = np.full((32, 48, 3), (10, 200, 90), np.uint8)
    Image.fromarray(image).save("mine/world/pictures/mine-1.png")
    np.testing.assert_array_equal(WorldEnv("mine/world").reset(seed=1)[0], image)


def test_embedded_world_that_was_loaded_starts_from_its_own_images() -> None:
    loaded = WorldEnv(load_world("maze", device="cpu")).reset(seed=1)[0]
    np.testing.assert_array_equal(loaded, WorldEnv("maze").reset(seed=1)[0])


def test_rgb_array_list_renders_every_frame_once() -> None:
    env = WorldEnv(tiny.world(), tiny.picture(), "rgb_array_list")
    env.reset(seed=1)
    (start,) = list(env.render() or [])
    assert start.shape == (32, 48, 3)
    _, _, _, _, info = env.step(IDLE)
    np.testing.assert_array_equal(np.array(env.render()), info["frames"])
    assert env.render() == []
    assert env.metadata["render_fps"] == env.world.spec.frame_rate
    blocks = WorldEnv(env.world, tiny.picture(), "rgb_array").metadata["render_fps"]
    assert blocks == env.world.spec.frame_rate / 12


def test_reward_is_that_of_the_hook_or_0_and_the_info_says_so(env: WorldEnv) -> None:
    assert "always 0" in env.reset(seed=1)[1]["reward"]
    assert env.step(IDLE)[1] == 0
    rewarded = WorldEnv(env.world, tiny.picture(), reward=lambda frames, _: frames.mean())
    assert "reward" not in rewarded.reset(seed=1)[1]
    _, reward, _, _, info = rewarded.step(IDLE)
    assert reward == info["frames"].mean()


def test_former_names_of_the_image_are_taken(env: WorldEnv) -> None:
    expected, _ = env.reset(seed=1)
    former = WorldEnv(env.world, picture=tiny.picture())
    np.testing.assert_array_equal(former.reset(seed=1)[0], expected)
    former = WorldEnv(env.world)
    frame, _ = former.reset(seed=1, options={"picture": tiny.picture()})
    np.testing.assert_array_equal(frame, expected)


def test_every_embedded_world_is_registered_with_a_batched_vector_environment() -> None:
    for name in embedded_worlds():
        spec = gymnasium.spec(f"glassworld/{name}-v0")
        assert spec.kwargs == {"world": name}
        assert load_env_creator(spec.vector_entry_point) is WorldVectorEnv
        assert EnvSpec.from_json(spec.to_json()) == spec


@pytest.mark.slow  # blocks of the embedded worlds
@pytest.mark.parametrize("name", embedded_worlds())
def test_embedded_world_is_made_by_its_name_and_passes_the_checker(name: str) -> None:
    env = gymnasium.make(f"glassworld.gym:glassworld/{name}-v0", render_mode="rgb_array")
    assert env.unwrapped.world.name == name
    check_env(env.unwrapped, skip_render_check=True)
    env.close()


@pytest.mark.parametrize("mode", MODES)
def test_vector_environment_shows_the_frames_of_single_ones(mode: str) -> None:
    world = tiny.world(mode=mode, dit=MODES[mode])
    envs = gymnasium.make_vec(
        "glassworld/World-v0", 2, world=world, image=tiny.picture(), render_mode="rgb_array"
    )
    assert isinstance(envs, WorldVectorEnv)
    envs.action_space.seed(3)
    images, infos = envs.reset(seed=7)
    assert envs.observation_space.contains(images)
    assert infos["seed"].shape == infos["_frames"].shape == (2,)
    singles = [WorldEnv(world, tiny.picture()) for _ in range(2)]
    for index, env in enumerate(singles):
        np.testing.assert_array_equal(env.reset(seed=7 + index)[0], images[index])
    for _ in range(3):
        actions = envs.action_space.sample()
        images, rewards, terminated, truncated, infos = envs.step(actions)
        rows = list(gymnasium.vector.utils.iterate(envs.action_space, actions))
        for env, row, image, frames in zip(singles, rows, images, infos["frames"], strict=True):
            expected = env.step(row)[4]["frames"]
            np.testing.assert_allclose(frames.astype(int), expected.astype(int), atol=1)
            np.testing.assert_array_equal(image, frames[-1])
        assert not np.stack([rewards, terminated, truncated]).any()
    np.testing.assert_array_equal(np.array(envs.render()), images)
    envs.close()
    with pytest.raises(InputError, match="reset"):
        envs.step(actions)


def test_vector_environment_gives_the_reward_of_each_block() -> None:
    envs = WorldVectorEnv(2, tiny.world(), tiny.picture(), reward=lambda frames, _: frames.mean())
    envs.reset(seed=[1, 5])
    _, rewards, _, _, infos = envs.step(envs.action_space.sample())
    np.testing.assert_allclose(rewards, infos["frames"].mean((1, 2, 3, 4)))


def test_vector_environment_ends_episodes_and_resets_by_the_next_step() -> None:
    envs = gymnasium.make_vec(
        "glassworld/World-v0", 2, world=tiny.world(), image=tiny.picture(), max_episode_steps=2
    )
    start, _ = envs.reset(seed=(1, 2))
    actions = envs.action_space.sample()
    for truncated in ([False] * 2, [True] * 2, [False] * 2, [False] * 2, [True] * 2):
        images, rewards, terminated, ended, infos = envs.step(actions)
        assert ended.tolist() == truncated
        assert not terminated.any()
        assert not rewards.any()
        assert ("seed" in infos) == np.array_equal(images, start)


MIDDLE = np.array([False, True, False])


def drawn_actions(envs: WorldVectorEnv, count: int) -> list[Any]:
    envs.action_space.seed(3)
    return [envs.action_space.sample() for _ in range(count)]


def assert_close(frames: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(frames.astype(int), expected.astype(int), atol=1)


@pytest.mark.parametrize("mixes_ages", [True, False])
def test_reset_mask_starts_those_over_and_the_others_go_on(
    mixes_ages: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = tiny.world()
    for layer in world.networks.dit.blocks:  # False: kernels cannot
        monkeypatch.setattr(layer, "takes_batch_slots", mixes_ages)
    envs = WorldVectorEnv(3, world, tiny.picture(), "rgb_array")
    actions = drawn_actions(envs, 7)
    envs.reset(seed=7)
    expected = [envs.step(action)[4]["frames"] for action in actions]

    envs.reset(seed=7)
    for action in actions[:3]:
        before = envs.step(action)[0]
    options = {"reset_mask": MIDDLE, "image": tiny.picture(64, 48)}
    images, infos = envs.reset(seed=20, options=options)
    assert options["reset_mask"] is MIDDLE  # wrappers of Gymnasium read it afterwards
    single = WorldEnv(world)
    start, info = single.reset(seed=21, options={"image": tiny.picture(64, 48)})
    np.testing.assert_array_equal(images, [before[0], start, before[2]])
    np.testing.assert_array_equal(np.array(envs.render()), images)
    assert infos["seed"][1] == info["seed"]
    for name in ("_frames", "_seed", "_reward"):
        np.testing.assert_array_equal(infos[name], MIDDLE)

    for block, action in enumerate(actions[3:], 3):
        images, _, _, _, infos = envs.step(action)
        assert envs.observation_space.contains(images)
        assert infos["_frames"].all()
        row = list(gymnasium.vector.utils.iterate(envs.action_space, action))[1]
        others = expected[block]
        for frames, own in zip(
            infos["frames"], (others[0], single.step(row)[4]["frames"], others[2]), strict=True
        ):
            assert_close(frames, own)


def test_reset_mask_begins_the_episodes_of_those_environments_alone() -> None:
    envs = WorldVectorEnv(3, tiny.world(), tiny.picture(), max_episode_steps=2)
    envs.reset(seed=1)
    (action,) = drawn_actions(envs, 1)
    envs.step(action)
    envs.reset(options={"reset_mask": MIDDLE})
    assert envs.step(action)[3].tolist() == [True, False, True]
    images, _, _, ended, infos = envs.step(action)  # the first and last start over
    assert ended.tolist() == [False, True, False]
    assert infos["_seed"].tolist() == [True, False, True]
    assert [len(frames) for frames in infos["frames"]] == [1, 12, 1]
    for image, frames in zip(images, infos["frames"], strict=True):
        np.testing.assert_array_equal(image, frames[-1])


@pytest.mark.parametrize(
    ("mask", "given"),
    [
        ([False, True, False], "list"),
        (np.array([0, 1, 0]), r"int64 of shape \(3,\)"),
        (np.array([True, False]), r"bool of shape \(2,\)"),
        (np.zeros(3, bool), r"bool of shape \(3,\)"),
    ],
)
def test_vector_environment_refuses_another_reset_mask(mask: object, given: str) -> None:
    envs = WorldVectorEnv(3, tiny.world(), tiny.picture())
    with pytest.raises(InputError, match="nothing has started yet"):
        envs.reset(options={"reset_mask": MIDDLE})
    envs.reset(seed=1)
    advice = r"; give a bool array of shape \(3,\) with at least one True"
    with pytest.raises(InputError, match=f"^reset_mask: is {given}{advice}$"):
        envs.reset(options={"reset_mask": mask})


@pytest.mark.parametrize("kind", [WorldEnv, WorldVectorEnv])
def test_environment_refuses_a_render_mode_that_it_does_not_have(kind: Any) -> None:
    with pytest.raises(InputError, match="'ansi' is not one of rgb_array"):
        kind(world=tiny.world(), image=tiny.picture(), render_mode="ansi")


def test_observations_are_arrays_of_their_own(env: WorldEnv) -> None:
    for observe in (lambda: env.reset(seed=1)[0], lambda: env.step(IDLE)[0]):
        frame = observe()
        assert frame.base is None  # of a view it would keep the whole block
        shown = frame.copy()
        frame[:] = 0
        np.testing.assert_array_equal(env.render(), shown)


@pytest.mark.parametrize("count", [0, -2, 1.5, "3"])
def test_vector_environment_refuses_counts_below_one(count: Any) -> None:
    for name in ("num_envs", "max_episode_steps"):
        with pytest.raises(InputError, match=f"{name}: is {count!r}; give a whole number"):
            WorldVectorEnv(**{"world": tiny.world(), "image": tiny.picture(), name: count})


def test_vector_environment_without_a_limit_never_truncates() -> None:
    for limit in (None, -1):
        envs = WorldVectorEnv(1, tiny.world(), tiny.picture(), max_episode_steps=limit)
        envs.reset(seed=1)
        assert not any(envs.step(envs.action_space.sample())[3].any() for _ in range(2))


def test_vector_environment_refuses_another_number_of_seeds() -> None:
    envs = WorldVectorEnv(2, tiny.world(), tiny.picture())
    with pytest.raises(InputError, match="3 seeds for 2 environments"):
        envs.reset(seed=[1, 2, 3])


def test_vector_environment_refuses_an_action_outside_the_space() -> None:
    envs = WorldVectorEnv(2, tiny.world(), tiny.picture())
    envs.reset(seed=1)
    actions = envs.action_space.sample()
    actions["mouse"] = np.full((2, 2), 3.0)
    with pytest.raises(ActionError, match="is not in Dict"):
        envs.step(actions)


@pytest.mark.parametrize("mode", ["universal", "templerun"])
@pytest.mark.parametrize("kind", ["single", "list", "short", "long", "none"])
def test_vector_environment_refuses_actions_that_are_not_one_for_each(mode: str, kind: str) -> None:
    envs = WorldVectorEnv(2, tiny.world(mode=mode, dit=MODES[mode]), tiny.picture())
    envs.reset(seed=1)
    more = gymnasium.vector.utils.batch_space(envs.single_action_space, 3)
    fewer = gymnasium.vector.utils.batch_space(envs.single_action_space, 1)
    actions = {
        "single": envs.single_action_space.sample(),
        "list": [IDLE, IDLE, IDLE],
        "short": fewer.sample(),
        "long": more.sample(),
        "none": None,
    }[kind]
    refused = "is not in Dict|not one for each of 2 environments"
    with pytest.raises(ActionError, match=refused):
        envs.step(actions)


@pytest.mark.slow  # twelve blocks of the embedded world
def test_agent_example_writes_a_video_of_the_embedded_world(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, ROOT / "examples" / "agent.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    assert "block 11:" in run.stdout
    assert (tmp_path / "agent.mp4").read_bytes()[4:8] == b"ftyp"
