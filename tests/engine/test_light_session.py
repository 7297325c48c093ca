"""Light session files: small, exact while the session is young, close afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from glassworld.engine.actions.track import Action
from glassworld.engine.batch import SessionBatch
from glassworld.engine.media.images import psnr
from glassworld.engine.session import Session
from glassworld.engine.session_file import METADATA_KEY
from glassworld.engine.state import recent_frames
from glassworld.engine.world import World
from glassworld.errors import InputError
from tests.support import tiny

FORWARD, LEFT = Action((1, 0, 0, 0), (0, 0)), Action((0, 0, 0, 0), (0, -0.1))


@pytest.fixture(scope="module")
def world() -> World:
    return tiny.world()


def walked(world: World, blocks: int, frames: int | None = None) -> Session:
    session = world.start(tiny.picture(), seed=4, num_latent_frames=frames)
    for index in range(blocks):
        session.step([FORWARD, LEFT][index % 2])
    return session


def saved(session: Session, path: Path) -> Path:
    session.save(path, light=True)
    return path


@pytest.mark.parametrize("blocks", [0, 1, 4])
@pytest.mark.parametrize("known_length", [False, True])
def test_young_session_goes_on_with_the_same_bits(
    world: World, tmp_path: Path, blocks: int, known_length: bool
) -> None:
    session = walked(world, blocks, 3 * (blocks + 2) if known_length else None)
    resumed = tiny.world().resume(saved(session, tmp_path / "walk.gws"))
    assert repr(resumed) == repr(session)
    for action in (LEFT, FORWARD):
        assert np.array_equal(resumed.step(action), session.step(action))


@pytest.mark.slow
@pytest.mark.parametrize("window", [6, 7])
def test_old_session_goes_on_close_to_the_saved_one(tmp_path: Path, window: int) -> None:
    world = tiny.world(dit={"window": window})
    session = walked(world, 9)
    other = world.start(tiny.picture(), seed=4)  # of the same image, and elsewhere
    resumed = world.resume(saved(session, tmp_path / "walk.gws"))
    for action in (LEFT, LEFT, FORWARD):
        frames, expected = resumed.step(action), session.step(action)
        error = np.square(frames.astype(float) - expected).mean()
        assert psnr(float(error)) > 40
    assert np.square(other.step(LEFT)[-4:].astype(float) - expected[-4:]).mean() > 4 * error


def test_light_file_has_no_caches_and_is_saved_again_alike(world: World, tmp_path: Path) -> None:
    session = walked(world, 9)
    light, exact = saved(session, tmp_path / "light.gws"), tmp_path / "exact.gws"
    session.save(exact)
    assert light.stat().st_size < exact.stat().st_size / 10
    again = saved(world.resume(light), tmp_path / "again.gws")
    of_exact = saved(world.resume(exact), tmp_path / "of_exact.gws")
    assert load_file(light).keys() == load_file(again).keys()
    assert light.read_bytes() == of_exact.read_bytes()
    for name, tensor in load_file(light).items():
        assert np.array_equal(tensor, load_file(again)[name]), name


def test_session_of_a_batch_is_saved_light(world: World, tmp_path: Path) -> None:
    sessions = [walked(world, blocks) for blocks in (0, 1)]
    batch = SessionBatch(sessions)
    batch.step([FORWARD, LEFT])
    resumed = world.resume(saved(sessions[1], tmp_path / "walk.gws"))
    state = sessions[1].save()
    sessions[1].restore(state)
    error = np.square(resumed.step(LEFT).astype(float) - sessions[1].step(LEFT)).mean()
    assert error < 0.1


def test_initial_latents_count_as_recent(world: World, tmp_path: Path) -> None:
    latents = world.generate(tiny.picture(), 6).latents
    kept: list[Session] = []

    def stop(session: Session) -> bool:
        kept[:] = [session]
        return False

    for _ in world.stream(tiny.picture(), 3, initial_latents=latents, noise="blocks", stop=stop):
        pass
    resumed = world.resume(saved(kept[0], tmp_path / "walk.gws"))
    assert np.array_equal(resumed.step(LEFT), kept[0].step(LEFT))


def test_world_with_sinks_is_refused(tmp_path: Path) -> None:
    session = walked(tiny.world(dit={"sink": 1}), 1)
    with pytest.raises(InputError, match="light: this world has attention sinks"):
        session.save(tmp_path / "walk.gws", light=True)
    assert list(tmp_path.iterdir()) == []


def test_files_of_version_1_are_resumed_and_later_saved_light(world: World, tmp_path: Path) -> None:
    session, path = walked(world, 2), tmp_path / "walk.gws"
    session.state.recent = None  # as version 1 had it
    session.save(path)
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()[METADATA_KEY])
    old = {name: value for name, value in header.items() if name not in ("light", "run_noise")}
    save_file(load_file(path), path, {METADATA_KEY: json.dumps({**old, "version": 1})})
    resumed = world.resume(path)
    with pytest.raises(InputError, match="holds 0 of 6 recent latents"):
        resumed.save(tmp_path / "light.gws", light=True)
    for _ in range(recent_frames(world.spec) // 3):
        assert np.array_equal(resumed.step(LEFT), session.step(LEFT))
    resumed.save(tmp_path / "light.gws", light=True)
    world.resume(tmp_path / "light.gws").step(LEFT)
