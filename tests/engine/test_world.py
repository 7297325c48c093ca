"""Worlds and sessions: determinism, independence, rewinding, extension, bounds."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from glassworld.engine.actions.track import Action, benchmark_actions, join_tracks
from glassworld.engine.rollout import BlockReport
from glassworld.engine.world import World
from glassworld.errors import InputError
from tests.support import tiny

FORWARD = Action((1, 0, 0, 0), (0, 0))


LEFT = Action((0, 0, 0, 0), (0, -0.1))


@pytest.fixture(scope="module")
def world() -> World:
    return tiny.world()


def test_generate_depends_on_its_arguments_only(world: World) -> None:
    first, again = (world.generate(tiny.picture(), 6, seed=1) for _ in range(2))
    assert np.array_equal(first.frames, again.frames)
    assert first.frames.shape == (21, 32, 48, 3)
    assert first.frames.dtype == np.uint8
    assert first.latents.shape == (1, 16, 6, 4, 6)
    assert len(first.actions) == 21
    other = world.generate(tiny.picture(), 6, seed=2)
    assert not torch.allclose(first.latents, other.latents)


def test_generate_first_frames_do_not_depend_on_later_actions(world: World) -> None:
    track = benchmark_actions(world.space, 45, 3)
    late = track.keyboard.copy()
    late[32:] = 1 - late[32:]
    changed = type(track)(late, track.mouse)
    same, differ = (world.generate(tiny.picture(), 12, actions=each) for each in (track, changed))
    assert torch.equal(same.latents[:, :, :9], differ.latents[:, :, :9])
    assert not torch.allclose(same.latents[:, :, 9:], differ.latents[:, :, 9:])


@pytest.mark.parametrize(
    "changes",
    [
        {"frames_per_block": 1},
        {"dit": {"window": 4}},
        {"dit": {"window": 7, "sink": 2}},
        {"denoising_steps": (1000, 750, 500, 250)},
        {"denoising_steps": tuple(range(1000, 0, -20))},
        {"height": 48, "width": 16},
        {"warp_steps": False},
        {"eta": 0.5},
    ],
)
def test_generate_works_for_other_specs(changes: dict[str, object]) -> None:
    world = tiny.world(**changes)
    rollout = world.generate(tiny.picture(), 6)
    assert rollout.frames.shape == (21, world.spec.height, world.spec.width, 3)
    assert torch.isfinite(rollout.latents).all()


def test_generate_with_initial_latents_extends_them(world: World, tmp_path: Path) -> None:
    begun = world.generate(tiny.picture(), 6, seed=1)
    save_file({"latents": begun.latents}, tmp_path / "begun.safetensors")
    more = world.generate(tiny.picture(), 6, seed=1, initial_latents=tmp_path / "begun.safetensors")
    assert torch.equal(more.latents[:, :, :6], begun.latents)
    assert more.latents.shape[2] == 12
    assert len(more.frames) == 21
    fresh = world.generate(tiny.picture(), 6, seed=1)
    assert not torch.allclose(more.latents[:, :, 6:], fresh.latents)


def test_world_is_immutable(world: World) -> None:
    for owner in (world, world.pipeline, world.networks, world.plan):
        for name in (*vars(owner), "anything"):
            with pytest.raises(FrozenInstanceError):
                setattr(owner, name, None)


def test_on_block_can_end_the_run(world: World) -> None:
    heard: list[BlockReport] = []

    def stop(report: BlockReport) -> bool:
        heard.append(report)
        return len(heard) < 2

    rollout = world.generate(tiny.picture(), 12, on_block=stop)
    assert [report.index for report in heard] == [0, 1]
    assert len(rollout.frames) == len(rollout.actions) == 21
    assert rollout.latents.shape[2] == 6


@pytest.mark.parametrize("extended", [False, True])
def test_stream_yields_the_blocks_that_generate_collects(world: World, extended: bool) -> None:
    initial = world.generate(tiny.picture(), 3, seed=5).latents if extended else None
    whole = world.generate(tiny.picture(), 9, 5, initial_latents=initial)
    blocks = list(world.stream(tiny.picture(), 9, 5, initial_latents=initial))
    assert [(block.index, block.total) for block in blocks] == [(0, 3), (1, 3), (2, 3)]
    assert np.array_equal(np.concatenate([block.frames for block in blocks]), whole.frames)
    latents = torch.cat([block.latents for block in blocks], 2)
    assert torch.equal(latents, whole.latents[:, :, -9:])
    assert join_tracks(block.actions for block in blocks) == whole.actions


def test_stream_keeps_no_block(world: World) -> None:
    blocks = world.stream(tiny.picture(), 12)
    frames = weakref.ref(next(blocks).frames)
    next(blocks)
    gc.collect()
    assert frames() is None


def test_stream_refuses_bad_arguments_before_the_first_block(world: World) -> None:
    with pytest.raises(InputError, match="multiple of the 3"):
        world.stream(tiny.picture(), 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_latent_frames": 4}, "multiple of the 3"),
        ({"num_latent_frames": 0}, "positive"),
        ({"num_latent_frames": -3}, "positive"),
        ({"num_latent_frames": 3, "seed": -1}, "seed"),
        ({"num_latent_frames": 3, "initial_latents": torch.zeros(1, 16, 3, 4, 5)}, "latents are"),
        ({"num_latent_frames": 3, "initial_latents": torch.zeros(1, 16, 4, 4, 6)}, "multiple"),
        (
            {"num_latent_frames": 3, "initial_latents": torch.full((1, 16, 3, 4, 6), torch.nan)},
            "finite",
        ),
        (
            {
                "num_latent_frames": 3,
                "initial_latents": torch.full((1, 16, 3, 4, 6), 1e300, dtype=torch.float64),
            },
            "finite",
        ),
        ({"num_latent_frames": 3, "noise": "foo"}, "noise 'foo': must be one of run, blocks"),
        ({"num_latent_frames": 3, "noise": None}, "noise None"),
        ({"num_latent_frames": 3, "actions": "missing.csv"}, "missing.csv"),
    ],
)
def test_generate_refuses_bad_arguments(
    world: World, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        world.generate(tiny.picture(), **arguments)


NOT_WHOLE = ["42", 1.5, 12.0, True, np.float64(3), np.zeros(3, int), [1], 1j]


@pytest.mark.parametrize("value", NOT_WHOLE, ids=repr)
def test_arguments_that_are_no_whole_numbers_are_refused(world: World, value: Any) -> None:
    calls: list[tuple[str, Callable[[], object]]] = [
        ("seed", lambda: world.generate(tiny.picture(), 3, seed=value)),
        ("seed", lambda: world.start(tiny.picture(), seed=value)),
        ("num_latent_frames", lambda: world.generate(tiny.picture(), num_latent_frames=value)),
        ("num_latent_frames", lambda: world.start(tiny.picture(), num_latent_frames=value)),
    ]
    for name, call in calls:
        with pytest.raises(InputError, match=rf"^{name} .*: must be a whole number") as caught:
            call()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("whole", [np.int64, np.uint8, np.array, torch.tensor])
def test_whole_numbers_of_any_type_are_taken(world: World, whole: Any) -> None:
    expected = world.generate(tiny.picture(), 3, seed=3).frames
    assert np.array_equal(world.generate(tiny.picture(), whole(3), seed=whole(3)).frames, expected)
    session = world.start(tiny.picture(), whole(3), whole(3))
    track = benchmark_actions(world.space, 9, 3)
    session.state.actions.append(track.keyboard, track.mouse, 24)
    assert np.abs(session.advance()[0].astype(int) - expected).max() <= 1


@pytest.mark.parametrize(("seed", "frames"), [(-1, 3), (2**63, 3), (1, 4), (1, 0), (1, -3)])
def test_start_refuses_what_generate_refuses(world: World, seed: int, frames: int) -> None:
    for call in (world.start, lambda image, s, n: world.generate(image, n, s)):
        with pytest.raises(InputError, match=r"must lie between|positive multiple of the 3"):
            call(tiny.picture(), seed, frames)


def test_generate_takes_actions_of_every_form_as_the_same(world: World) -> None:
    expected = world.generate(tiny.picture(), 3, actions="w*9").frames
    for actions in (FORWARD, [FORWARD] * 9, np.tile([1, 0, 0, 0, 0, 0], (9, 1))):
        assert np.array_equal(world.generate(tiny.picture(), 3, actions=actions).frames, expected)
    with pytest.raises(InputError, match="8 rows, but this run needs 9"):
        world.generate(tiny.picture(), 3, actions=[FORWARD] * 8)


def test_generate_takes_initial_latents_as_an_array(world: World) -> None:
    begun = world.generate(tiny.picture(), 3).latents
    expected = world.generate(tiny.picture(), 3, initial_latents=begun)
    array = begun.numpy()[::-1]  # as numpy writes views, which torch does not read
    made = world.generate(tiny.picture(), 3, initial_latents=array)
    assert np.array_equal(made.frames, expected.frames)
    bad: list[tuple[Any, str]] = [
        (array.astype(object), "holds object"),
        ([1, 2], "not list"),
        (3, "not int"),
    ]
    for latents, reason in bad:
        with pytest.raises(InputError, match=f"^initial_latents: .*{reason}"):
            world.generate(tiny.picture(), 3, initial_latents=latents)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.complex64, torch.int64])
def test_generate_refuses_initial_latents_of_other_dtypes(
    world: World, dtype: torch.dtype, tmp_path: Path
) -> None:
    path = tmp_path / "latents.safetensors"
    save_file({"latents": torch.zeros(1, 16, 3, 4, 6).to(dtype)}, path)
    with pytest.raises(InputError, match=rf"latents.safetensors: holds {dtype}; must be one of"):
        world.generate(tiny.picture(), 3, initial_latents=path)


def test_generate_refuses_initial_latents_too_large_for_float32(world: World) -> None:
    latents = torch.full((1, 16, 3, 4, 6), 1e300, dtype=torch.float64)
    with pytest.raises(InputError, match="not finite"):
        world.generate(tiny.picture(), 3, initial_latents=latents)
