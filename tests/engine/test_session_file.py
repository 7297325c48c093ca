"""Sessions as files: the same bits onward, and every damage refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from glassworld.engine.actions.track import Action
from glassworld.engine.batch import SessionBatch
from glassworld.engine.session import Session
from glassworld.engine.session_file import METADATA_KEY
from glassworld.engine.world import World
from glassworld.errors import InputError
from tests.support import tiny

FORWARD, LEFT = Action((1, 0, 0, 0), (0, 0)), Action((0, 0, 0, 0), (0, -0.1))
KEYBOARD_ONLY = replace(tiny.DIT.action, keyboard_dim=7, mouse_dim=0)
ACTIONS = [FORWARD, LEFT, LEFT]


@pytest.fixture(scope="module")
def world() -> World:
    return tiny.world()


@pytest.fixture
def saved(world: World, tmp_path: Path) -> Path:
    session = world.start(tiny.picture(), seed=4)
    session.step(FORWARD)
    session.save(tmp_path / "walk.gws")
    return tmp_path / "walk.gws"


def assert_same_frames(session: Session, expected: Session) -> None:
    for action in ACTIONS:
        assert np.array_equal(session.step(action), expected.step(action))


@pytest.mark.parametrize("blocks", [0, 1, 8])
@pytest.mark.parametrize("known_length", [False, True])
def test_resumed_session_goes_on_with_the_same_bits(
    world: World, tmp_path: Path, blocks: int, known_length: bool
) -> None:
    frames = 3 * (blocks + len(ACTIONS)) if known_length else None
    session = world.start(tiny.picture(), seed=7, num_latent_frames=frames)
    for index in range(blocks):
        session.step(ACTIONS[index % len(ACTIONS)])
    session.save(tmp_path / "walk.gws")
    resumed = tiny.world().resume(str(tmp_path / "walk.gws"))  # as another process would
    assert repr(resumed) == repr(session)
    assert_same_frames(resumed, session)


@pytest.mark.parametrize(
    "changes", [{"mode": "templerun", "dit": {"action": KEYBOARD_ONLY}}, {"frames_per_block": 1}]
)
def test_worlds_of_other_modes_are_resumed(changes: dict[str, object], tmp_path: Path) -> None:
    world = tiny.world(**changes)
    session = world.start(tiny.picture(), seed=1)
    action = world.space.press(world.space.keyboard[0])
    session.step(action)
    session.save(tmp_path / "walk.gws")
    resumed = world.resume(tmp_path / "walk.gws")
    assert np.array_equal(resumed.step(action), session.step(action))


def test_session_of_a_batch_is_saved_alone(world: World, tmp_path: Path) -> None:
    sessions = [world.start(tiny.picture(), seed=seed) for seed in (1, 2)]
    batch = SessionBatch(sessions)
    for _ in range(3):
        batch.step([FORWARD, LEFT])
    sessions[1].save(tmp_path / "walk.gws")
    state = sessions[1].save()
    resumed = world.resume(tmp_path / "walk.gws")
    sessions[1].restore(state)
    assert_same_frames(resumed, sessions[1])


def test_file_has_no_more_than_the_state(saved: Path, world: World) -> None:
    state = world.resume(saved).state
    assert saved.stat().st_size < 1.3 * state.nbytes + 100_000


def test_another_world_is_refused(saved: Path) -> None:
    other = tiny.world()
    other.networks.dit.patch_embedding.weight.data[0] += 1
    with pytest.raises(InputError, match=r"walk\.gws: saved from another world, 'tiny"):
        other.resume(saved)


@pytest.mark.parametrize("part", ["decoder", "encoder"])
def test_vae_in_another_dtype_is_refused(saved: Path, part: str) -> None:
    other = tiny.world()
    getattr(other.networks, part).to(torch.bfloat16)
    with pytest.raises(InputError, match=f"with a {part} in float32, which is in bfloat16 here"):
        other.resume(saved)


def test_other_spec_is_refused(saved: Path) -> None:
    with pytest.raises(InputError, match="saved from another world"):
        tiny.world(dit={"window": 9}).resume(saved)


def _change(path: Path, **header: object) -> None:
    """Write the file again with other values in its header."""
    with safe_open(path, framework="pt") as file:
        values = json.loads(file.metadata()[METADATA_KEY])
    save_file(load_file(path), path, {METADATA_KEY: json.dumps({**values, **header})})


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"version": 3}, "of version 3"),
        ({"dtype": "torch.bfloat16"}, "load the world with dtype bfloat16"),
        ({"start": "three"}, "not a readable session"),
        ({"owner": "x"}, "not a readable session"),
        ({"digest": "0"}, "damaged"),
    ],
)
def test_header_that_does_not_fit_is_refused(
    saved: Path, world: World, header: dict[str, object], words: str
) -> None:
    _change(saved, **header)
    with pytest.raises(InputError, match=words):
        world.resume(saved)


def test_changed_tensor_is_refused(saved: Path, world: World) -> None:
    content = bytearray(saved.read_bytes())
    content[-9] ^= 1
    saved.write_bytes(content)
    with pytest.raises(InputError, match="its contents have changed"):
        world.resume(saved)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x08\0\0\0\0\0\0\0{}      "])
def test_what_is_no_session_is_refused(tmp_path: Path, world: World, content: bytes) -> None:
    path = tmp_path / "walk.gws"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"walk\.gws: not a"):
        world.resume(path)
    with pytest.raises(InputError, match="no such file"):
        world.resume(tmp_path / "nothing.gws")


def test_session_file_that_cannot_be_written_leaves_nothing(world: World, tmp_path: Path) -> None:
    session = world.start(tiny.picture())
    (tmp_path / "walk.gws").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        session.save(tmp_path / "walk.gws")
    assert list(tmp_path.iterdir()) == [tmp_path / "walk.gws"]
