"""The pool of long rollouts: they continue, follow recorded actions, restart, and some rest."""

from itertools import pairwise

import torch

from glassworld.training.objectives.rollout_pool import RolloutPool
from glassworld.training.trainer import generator
from tests.support.small import (
    SMALL,
    latent_episodes,
    latent_episodes_with_pause,
    small_model,
)


def test_rollout_pool_continues_from_what_it_generated() -> None:
    model = small_model()
    pool = RolloutPool(latent_episodes(), model, 3, 1800, 0.25, generator(0, 0))
    before = pool.position.clone()
    for turn in range(3):
        clip = pool.advance(SMALL.sampler, generator(1, turn))
        assert clip.latents.shape == (3, 16, 6, 8, 12)
        assert not pool.history.isnan().any()
    assert (pool.position == before + 18).all()
    clip.latents.sum().backward()
    assert model.dit.head.head.weight.grad is not None
    # Where the last denoising step was repeated, the judged latents are those of the history.
    torch.testing.assert_close(
        clip.latents[:, :, :3].detach(), pool.history[:, :, :3], atol=1e-3, rtol=1e-3
    )


def test_rollout_pool_follows_the_actions_of_the_episode() -> None:
    """A rollout from latent frame f on sees the actions that the episode's frames saw."""
    episodes = latent_episodes()
    pool = RolloutPool(episodes, small_model(), 2, 600, 0.25, generator(0, 0))
    for row in range(2):
        episode, frame = divmod(int(pool.position[row]) - 1, 30)
        pool.position[row] = episode * 30 + (frame + 1) % 15 + 3
    clip = pool.advance(SMALL.sampler, generator(1, 0))
    for row in range(2):
        episode, first = divmod(int(pool.position[row]), 30)  # first frame of the clip
        rows = torch.stack(
            [episodes.keyboard[episode, 4 * f - 12 : 4 * f] for f in range(first, first + 6)]
        )
        torch.testing.assert_close(clip.windows.keyboard[row], rows)


def test_rollout_pool_restarts_the_oldest_rollout() -> None:
    # Each rollout lasts for four advances of two blocks.
    pool = RolloutPool(latent_episodes(), small_model(), 2, 24, 0.25, generator(0, 0))
    starts = [pool.position.clone()]
    for turn in range(5):
        pool.advance(SMALL.sampler, generator(1, turn))
        starts.append(pool.position - 6 * (turn + 1))
    changed = [(one != other).tolist() for one, other in pairwise(starts)]
    assert changed == [[False] * 2, [False] * 2, [True, False], [False] * 2, [False, True]]


def test_rollout_pool_rests_in_some_rows_and_so_do_its_true_clips() -> None:
    pool = RolloutPool(latent_episodes_with_pause(), small_model(), 24, 600, 0.25, generator(0, 2))
    assert 0 < pool.at_rest.sum() < 16
    clip = pool.advance(SMALL.sampler, generator(1, 0))
    assert not clip.windows.keyboard[pool.at_rest].any()
    assert clip.windows.keyboard[~pool.at_rest].flatten(1).any(1).all()
    true = pool.true_clips(generator(1, 1))
    assert true.latents.shape == clip.latents.shape
    assert not true.windows.keyboard[pool.at_rest].any()
    still = (true.latents == true.latents[:, :, :1]).flatten(1).all(1)
    assert torch.equal(still, pool.at_rest)
