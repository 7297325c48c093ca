"""The block loop: its numbers, and its cost counted instead of timed."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from glassworld.engine.actions.track import Action, benchmark_actions
from glassworld.engine.pipeline import Pipeline
from glassworld.engine.session import Session
from glassworld.engine.world import World
from tests.support import tiny

WALK = Action((1, 0, 0, 0), (0, 0.1))


@pytest.fixture(scope="module")
def world() -> World:
    return tiny.world()


# aten calls, nested ones included, of a steady block: three steps, update pass, three frames.
# Lower it when work is saved; a rise needs a reason.
MOST_OPERATORS = 10300


WAITS = {"aten::item", "aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero"}


def steady() -> Session:
    session = tiny.world().start(tiny.picture())
    for _ in range(12):  # the window is full and the encoder has forgotten the picture
        session.step(WALK)
    return session


def operators(session: Session) -> Counter[str]:
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        session.step(WALK)
    return Counter(event.name for event in recorded.events() if event.name.startswith("aten::"))


@pytest.mark.slow
def test_every_block_does_the_same_work() -> None:
    session = steady()
    period = [operators(session) for _ in range(4)]  # the ring of 6 repeats every two blocks
    assert period[0] == period[2]
    assert period[1] == period[3]
    assert max(counted.total() for counted in period) <= MOST_OPERATORS


def test_generate_block_never_waits_for_the_device() -> None:
    session = steady()
    session.hold(WALK)
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        session.world.pipeline.generate_block([session.state])
    names = {event.name for event in recorded.events()}
    assert not names & WAITS


def test_steady_blocks_leave_no_memory_behind() -> None:
    session = steady()
    held = session.state.nbytes
    storages = {window.self_attention.k.data_ptr() for window in session.state.caches}
    for _ in range(4):
        session.step(WALK)
    assert session.state.nbytes == held
    assert {window.self_attention.k.data_ptr() for window in session.state.caches} == storages


def test_denoising_without_new_noise_follows_the_flow(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same first step; then Euler steps, computed here, instead of noise drawn anew."""
    euler = tiny.world(eta=0.0)
    flows: list[tuple[torch.Tensor, torch.Tensor]] = []
    forward = Pipeline.forward

    def recorded(
        pipeline: Pipeline, x: torch.Tensor, step: Any, state: Any, conditioning: Any, output: bool
    ) -> torch.Tensor | None:
        flow = forward(pipeline, x, step, state, conditioning, output)
        if output and flow is not None:
            flows.append((x, flow))
        return flow

    with monkeypatch.context() as patch:
        patch.setattr(Pipeline, "forward", recorded)
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


def test_prefill_fills_the_caches_as_the_run_did(world: World) -> None:
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
