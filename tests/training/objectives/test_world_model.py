"""The training forward repeats what a rollout with caches computes."""

import pytest
import torch

from glassworld.training.data.segments import draw_segment
from glassworld.training.objectives.world_model import ModelRollout, NoisyLatents, predict
from glassworld.training.trainer import generator
from tests.support.small import SMALL, latent_episodes, small_model


@pytest.mark.parametrize(("frames_per_block", "blocks"), [(3, 5), (1, 11)])
def test_predict_repeats_a_rollout_from_the_start_of_an_episode(
    frames_per_block: int, blocks: int
) -> None:
    """The last denoising step of all blocks at once gives what the caches gave."""
    model, random = small_model(frames_per_block), generator(0, 0)
    episodes = latent_episodes(frames_per_block=frames_per_block)
    segment = draw_segment(episodes, 2, 0, blocks, random)
    rollout = ModelRollout(model, segment, SMALL.sampler)
    rollout.generate(blocks, random)
    sigmas = torch.full((2, blocks * frames_per_block), SMALL.sampler[-1].sigma)
    last_inputs = torch.cat([inputs[-1] for inputs in rollout.step_inputs], 2)
    noisy = NoisyLatents(last_inputs, 1000 * sigmas, sigmas)
    with torch.no_grad():
        prediction = predict(model, segment, torch.cat(rollout.blocks[:-1], 2), 0, noisy)
    latents = torch.cat(rollout.blocks, 2)
    torch.testing.assert_close(noisy.x0(prediction.flow), latents, atol=1e-4, rtol=1e-4)


def test_rollout_step_inputs_are_what_the_transformer_was_given() -> None:
    model, random = small_model(), generator(0, 0)
    segment = draw_segment(latent_episodes(), 2, 0, 2, random)
    given: list[torch.Tensor] = []
    rollout = ModelRollout(model, segment, SMALL.sampler)
    with model.dit.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0][:, :16])):
        rollout.generate(2, random)
    passes = len(SMALL.sampler) + 1  # the last of a block fills the caches
    for block, inputs in enumerate(rollout.step_inputs):
        for step, x in enumerate(inputs):
            assert torch.equal(x, given[block * passes + step])


@pytest.mark.parametrize(("frames_per_block", "past"), [(3, 2), (1, 8)])
def test_predict_repeats_a_rollout_from_inside_an_episode(frames_per_block: int, past: int) -> None:
    """Prefilled blocks see as little before them as in training: nothing."""
    model, random = small_model(frames_per_block), generator(0, 0)
    episodes = latent_episodes(frames_per_block=frames_per_block)
    segment = draw_segment(episodes, 2, 4, past + 1, random)
    rollout = ModelRollout(model, segment, SMALL.sampler)
    rollout.prefill(past)
    rollout.generate(1, random)
    sigmas = torch.full((2, frames_per_block), SMALL.sampler[-1].sigma)
    noisy = NoisyLatents(rollout.step_inputs[0][-1], 1000 * sigmas, sigmas)
    with torch.no_grad():
        prediction = predict(model, segment, segment.known, past, noisy)
    torch.testing.assert_close(
        noisy.x0(prediction.flow), rollout.blocks[past], atol=1e-4, rtol=1e-4
    )
