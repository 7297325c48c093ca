"""Worlds and sessions: determinism, independence, rewinding, extension, bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from glassworld.engine.actions.track import Action, benchmark_actions
from glassworld.engine.checkpoint.latents import save_latents
from glassworld.engine.rollout import BlockReport
from glassworld.engine.world import World
from glassworld.errors import InputError
from glassworld.profiling import registry as tags
from glassworld.profiling.tags import listen
from tests.support import tiny

FORWARD = Action((1, 0, 0, 0), (0, 0))
LEFT = Action((0, 0, 0, 0), (0, -0.1))


@pytest.fixture(scope="module")
def world() -> World:
    return tiny.world()


def test_generate_is_a_function_of_its_arguments(world: World) -> None:
    first, again = (world.generate(tiny.picture(), 6, seed=1) for _ in range(2))
    assert np.array_equal(first.frames, again.frames)
    assert first.frames.shape == (21, 32, 48, 3)
    assert first.frames.dtype == np.uint8
    assert first.latents.shape == (1, 16, 6, 4, 6)
    assert len(first.actions) == 21
    other = world.generate(tiny.picture(), 6, seed=2)
    assert not torch.allclose(first.latents, other.latents)


def test_the_first_frames_do_not_depend_on_later_actions(world: World) -> None:
    track = benchmark_actions(world.space, 45, 3)
    late = track.keyboard.copy()
    late[32:] = 1 - late[32:]
    changed = type(track)(late, track.mouse)
    same, differ = (world.generate(tiny.picture(), 12, actions=each) for each in (track, changed))
    assert torch.equal(same.latents[:, :, :9], differ.latents[:, :, :9])
    assert not torch.allclose(same.latents[:, :, 9:], differ.latents[:, :, 9:])


def test_a_session_replayed_block_by_block_gives_the_same_frames(world: World) -> None:
    session = world.start(tiny.picture(), seed=9)
    actions = [FORWARD, LEFT, FORWARD]
    frames, rows = [], []
    for action in actions:
        rows.append(world.space.fill(action, session.next_frames))
        frames.append(session.step(action))
    assert [len(each) for each in frames] == [9, 12, 12]
    track = type(rows[0])(
        np.concatenate([row.keyboard for row in rows]), np.concatenate([row.mouse for row in rows])
    )
    replayed = world.generate(tiny.picture(), 9, seed=9, actions=track, noise="blocks")
    assert np.array_equal(np.concatenate(frames), replayed.frames)


def test_frames_are_handed_out_while_the_block_is_made(world: World) -> None:
    session = world.start(tiny.picture(), seed=3)
    heard: list[str | np.ndarray] = []
    stop = listen(lambda pattern, fields, start, end: heard.append(pattern))
    try:
        for sizes in ([1, 4, 4], [4, 4, 4]):
            heard.clear()
            whole = session.step(FORWARD, lambda part: heard.append(part.wait()[0].numpy()))
            parts = [each for each in heard if not isinstance(each, str)]
            assert [len(part) for part in parts] == sizes
            assert np.array_equal(np.concatenate(parts), whole)
            kinds = [each if isinstance(each, str) else "part" for each in heard]
            first, second = [at for at, kind in enumerate(kinds) if kind == "part"][:2]
            assert tags.DECODE_FRAME in kinds[first:second]  # the next is decoded afterwards
            assert kinds.index(tags.UPDATE_CACHE) > second
    finally:
        stop()


def test_sessions_are_independent(world: World) -> None:
    alone = world.start(tiny.picture(), seed=1)
    expected = [alone.step(FORWARD) for _ in range(3)]
    first, second = world.start(tiny.picture(), seed=1), world.start(tiny.picture(64, 64), seed=2)
    for frames in expected:
        assert np.array_equal(first.step(FORWARD), frames)
        second.step(LEFT)


def test_rewinding_gives_the_same_future(world: World) -> None:
    session = world.start(tiny.picture(), seed=4)
    session.step(FORWARD)
    saved = session.save()
    once = [session.step(LEFT) for _ in range(3)]
    for _ in range(2):
        session.restore(saved)
        assert all(np.array_equal(session.step(LEFT), frames) for frames in once)


def test_actions_change_the_frames(world: World) -> None:
    pairs = [world.start(tiny.picture(), seed=1).step(action) for action in (FORWARD, LEFT)]
    assert not np.array_equal(*pairs)


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
def test_other_shapes_of_runs(changes: dict[str, object]) -> None:
    world = tiny.world(**changes)
    rollout = world.generate(tiny.picture(), 6)
    assert rollout.frames.shape == (21, world.spec.height, world.spec.width, 3)
    assert torch.isfinite(rollout.latents).all()


def test_without_fresh_noise_the_steps_follow_the_flow(world: World) -> None:
    """The same first step; then Euler steps, computed here, instead of noise drawn anew."""
    euler = tiny.world(eta=0.0)
    flows: list[tuple[torch.Tensor, torch.Tensor]] = []
    forward = euler.pipeline.forward

    def seen(x: torch.Tensor, *rest: Any, output: bool) -> torch.Tensor | None:
        flow = forward(x, *rest, output=output)
        if output and flow is not None:
            flows.append((x, flow))
        return flow

    euler.pipeline.forward = seen  # type: ignore[method-assign]
    latents = euler.generate(tiny.picture(), 3, seed=1).latents
    sigmas = [*(step.sigma for step in euler.pipeline.steps), 0.0]
    after = [*(x for x, _ in flows[1:]), latents]
    assert len(flows) == len(sigmas) - 1
    for (x, flow), here, there, following in zip(
        flows, sigmas[:-1], sigmas[1:], after, strict=True
    ):
        torch.testing.assert_close(x + (there - here) * flow, following, atol=1e-5, rtol=1e-5)
    fresh = world.generate(tiny.picture(), 3, seed=1).latents
    assert not torch.allclose(fresh, latents)


def test_extension_goes_on_from_given_latents(world: World, tmp_path: Path) -> None:
    begun = world.generate(tiny.picture(), 6, seed=1)
    save_latents(tmp_path / "begun.safetensors", begun.latents)
    more = world.generate(tiny.picture(), 6, seed=1, initial_latents=tmp_path / "begun.safetensors")
    assert torch.equal(more.latents[:, :, :6], begun.latents)
    assert more.latents.shape[2] == 12
    assert len(more.frames) == 21
    fresh = world.generate(tiny.picture(), 6, seed=1)
    assert not torch.allclose(more.latents[:, :, 6:], fresh.latents)


def test_extension_continues_the_caches_of_the_run_it_extends(world: World) -> None:
    track = benchmark_actions(world.space, 45, 3)
    whole = world.generate(tiny.picture(), 12, seed=1, actions=track)
    session = world.start(tiny.picture(), seed=1)
    session.state.actions.keyboard, session.state.actions.mouse = track.keyboard, track.mouse
    world.pipeline.prefill(whole.latents[:, :, :9], session.state)
    other = world.start(tiny.picture(), seed=1, num_latent_frames=12)
    other.state.actions.keyboard, other.state.actions.mouse = track.keyboard, track.mouse
    for _ in range(3):
        other.advance()
    for prefilled, streamed in zip(session.state.caches, other.state.caches, strict=True):
        torch.testing.assert_close(
            prefilled.self_attention.k, streamed.self_attention.k, atol=1e-4, rtol=1e-4
        )


def test_long_runs_take_no_more_memory(world: World) -> None:
    session = world.start(tiny.picture())
    for _ in range(14):
        session.step(FORWARD)
    held = session.state.tensors_bytes()
    for _ in range(353):
        session.step(FORWARD)
    assert session.state.start == 1101
    assert session.state.tensors_bytes() == held
    assert len(session.state.actions.keyboard) <= 24


def test_a_caller_can_end_a_run_after_a_block(world: World) -> None:
    heard: list[BlockReport] = []

    def stop(report: BlockReport) -> bool:
        heard.append(report)
        return len(heard) < 2

    rollout = world.generate(tiny.picture(), 12, on_block=stop)
    assert [report.index for report in heard] == [0, 1]
    assert len(rollout.frames) == len(rollout.actions) == 21
    assert rollout.latents.shape[2] == 6


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
def test_bad_arguments(world: World, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        world.generate(tiny.picture(), **arguments)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.complex64, torch.int64])
def test_initial_latents_of_other_kinds_of_numbers(
    world: World, dtype: torch.dtype, tmp_path: Path
) -> None:
    path = tmp_path / "latents.safetensors"
    save_latents(path, torch.zeros(1, 16, 3, 4, 6).to(dtype))
    with pytest.raises(InputError, match=rf"latents.safetensors: holds {dtype}; must be one of"):
        world.generate(tiny.picture(), 3, initial_latents=path)


def test_initial_latents_too_large_for_float32(world: World) -> None:
    latents = torch.full((1, 16, 3, 4, 6), 1e300, dtype=torch.float64)
    with pytest.raises(InputError, match="not finite"):
        world.generate(tiny.picture(), 3, initial_latents=latents)
