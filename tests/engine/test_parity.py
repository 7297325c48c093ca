"""Golden runs of the reference, in float32 on the CPU."""

from __future__ import annotations

from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from glassworld.engine.batch import SessionBatch
from glassworld.engine.checkpoint.load import load_world
from glassworld.engine.media.images import Frames
from glassworld.engine.session import Session
from glassworld.engine.state import SessionState
from glassworld.engine.world import World
from tests.support.paths import SHARED

GOLDEN = SHARED / "parity"


VARIANTS = ["universal", "gta_drive", "templerun"]

needs_golden_runs = pytest.mark.skipif(
    not GOLDEN.is_dir(), reason="the reference's golden runs are not beside this clone"
)


@needs_golden_runs
@pytest.mark.parametrize("variant", VARIANTS)
def test_golden_run(variant: str) -> None:
    folder = GOLDEN / variant
    golden = load_file(folder / "expected.safetensors")
    world = load_world(folder, dtype="float32")
    assert world.spec.seed in (3, 7, 42)
    check_preparation(world, folder, golden)
    rollout = world.generate(folder / "image.png", 12, seed=world.spec.seed)
    spread = golden["latents"].std()
    assert (rollout.latents - golden["latents"]).abs().max() < 1e-4 * spread
    frames = golden["frames_uint8"][0].permute(0, 2, 3, 1).numpy()
    assert np.abs(rollout.frames.astype(int) - frames.astype(int)).max() <= 1
    assert np.array_equal(rollout.actions.keyboard, golden["keyboard"][0].numpy())
    if "mouse" in golden and rollout.actions.mouse is not None:
        assert np.array_equal(rollout.actions.mouse, golden["mouse"][0].numpy())


def check_preparation(world: World, folder: Path, golden: dict[str, torch.Tensor]) -> None:
    state = world.start(folder / "image.png", world.spec.seed, 12).state
    assert torch.equal(state.image.pixels, golden["image"])
    with torch.inference_mode():
        state.image.encode(12, world.networks.encoder)
        visual = world.networks.vision(golden["image"][:, :, 0])
    assert state.noise.run is not None
    assert torch.equal(state.noise.run, golden["noise"])
    torch.testing.assert_close(state.image.latents, golden["image_latents"], atol=1e-4, rtol=0)
    torch.testing.assert_close(visual, golden["visual_context"], atol=1e-4, rtol=0)
    timesteps = torch.tensor([step.timestep for step in world.pipeline.steps])
    torch.testing.assert_close(timesteps, golden["denoising_timesteps"])
    # The recorded flow of the first block is that of its pure noise at the second timestep.
    actions = world._actions(None, 45, world.spec.seed)
    state.actions.keyboard, state.actions.mouse = actions.keyboard, actions.mouse
    with torch.inference_mode():
        conditioning = world.pipeline.conditioning(state)
        x, step = golden["noise"][:, :, :3], world.pipeline.steps[1]
        flow = world.pipeline.forward(x, step, state, conditioning, output=True)
    assert flow is not None
    spread = golden["first_block_flow"].std()
    assert (flow - golden["first_block_flow"]).abs().max() < 1e-4 * spread


@pytest.mark.slow
@needs_golden_runs
@pytest.mark.parametrize("variant", VARIANTS)
def test_batch_of_any_two_ages_equals_single_sessions(variant: str) -> None:
    world, image = load_world(GOLDEN / variant, dtype="float32"), GOLDEN / variant / "image.png"
    actions = [world.space.press(control.key) for control in world.space.controls[:2]]
    full = world.spec.dit.window // world.spec.frames_per_block
    ages = range(full + 2)
    states: list[list[SessionState]] = []
    frames: list[list[Frames]] = []
    for index, action in enumerate(actions):
        session = world.start(image, seed=index)
        states.append([])
        frames.append([])
        for _ in range(len(ages) + 1):
            states[index].append(session.save())
            frames[index].append(session.step(action))
    for pair in combinations_with_replacement(ages, 2):
        sessions = [Session(world, states[i][age].copy()) for i, age in enumerate(pair)]
        batch = SessionBatch(sessions)
        for block in range(2):
            for index, made in enumerate(batch.step(actions)):
                expected = frames[index][pair[index] + block].astype(int)
                assert np.abs(made - expected).max() <= 1, f"ages {pair}, block {block}"
