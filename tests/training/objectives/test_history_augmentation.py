"""Histories: redrawn where the past is known, generated after the truth."""

import pytest
import torch

from glassworld.engine.sampling import FlowSchedule
from glassworld.training.data.segments import draw_segment
from glassworld.training.objectives.history_augmentation import (
    HistoryMix,
    draw_training_batch,
    redraw_history,
)
from glassworld.training.objectives.world_model import add_training_noise
from glassworld.training.trainer import generator
from tests.support.small import SMALL, latent_episodes, small_model


@pytest.mark.parametrize(("start", "known"), [(0, 0), (2, 3)])
def test_redraw_history_changes_the_blocks_whose_past_is_known(start: int, known: int) -> None:
    """A flow of zero leaves the truth with its noise."""
    model, segment = small_model(), draw_segment(latent_episodes(), 2, start, 4, generator(0, 0))
    torch.nn.init.zeros_(model.dit.head.head.weight)
    torch.nn.init.zeros_(model.dit.head.head.bias)
    history = redraw_history(model, segment, generator(0, 1))
    truth = segment.latents[:, :, :9]
    noisy = add_training_noise(truth[:, :, known:], FlowSchedule(), generator(0, 1))
    torch.testing.assert_close(history, torch.cat([truth[:, :, :known], noisy.x], 2))


@pytest.mark.slow
@pytest.mark.parametrize("from_start", [0.0, 1.0])
def test_draw_training_batch_with_a_rollout_starts_with_the_truth(from_start: float) -> None:
    mix = HistoryMix(from_start=from_start, redrawn=0, rollout=1, at_rest=0)
    model, episodes = small_model(), latent_episodes()
    for seed in range(6):
        segment, history, first = draw_training_batch(
            model, episodes, 2, mix, SMALL.sampler, generator(0, seed)
        )
        assert history.shape[2] == segment.latents.shape[2] - 3
        blocks = segment.latents.shape[2] // 3
        assert 1 <= blocks - first <= 3
        difference = history - segment.latents[:, :, :-3]
        is_generated = [bool(block.any()) for block in difference.split(3, 2)]
        assert is_generated == sorted(is_generated)  # from some block on, all are
        assert is_generated[-1]
        assert from_start or segment.start
