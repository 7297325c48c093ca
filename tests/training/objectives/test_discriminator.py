"""Training against a critic: what it tells apart, and the long play that it judges."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from glassworld.models.transformer.action import ActionWindows
from glassworld.training.objectives.adversarial import AdversarialTrainer, DiscriminatorRecipe
from glassworld.training.objectives.discriminator import (
    Clip,
    Discriminator,
    critic_loss,
    generator_loss,
)
from glassworld.training.objectives.history_augmentation import Shares
from glassworld.training.objectives.rollout_pool import RolloutPool
from glassworld.training.objectives.transformer import train_transformer
from glassworld.training.trainer import generator
from tests.support.small import SMALL, latent_play, small_model


def clip(latents: torch.Tensor, key: float = 0.0) -> Clip:
    rows = (len(latents), 6, 12)
    return Clip(latents, ActionWindows(torch.full((*rows, 4), key), torch.zeros(*rows, 2)))


def normal(seed: int) -> torch.Tensor:
    return torch.randn(8, 16, 6, 8, 12, generator=generator(3, seed))


def test_a_critic_learns_what_is_missing_and_teaches_it() -> None:
    """Real clips have contrast, made ones a fifth of it: the one who made them learns to add it."""
    torch.manual_seed(0)
    critic, contrast = Discriminator(width=16), torch.tensor(0.2, requires_grad=True)
    critics = torch.optim.Adam(critic.parameters(), 2e-3, (0.0, 0.99))
    makers = torch.optim.Adam([contrast], 2e-2, (0.0, 0.99))
    for step in range(120):
        real, made = clip(normal(2 * step)), clip(contrast * normal(2 * step + 1))
        critics.zero_grad()
        critic_loss(critic, real, made, penalty=1.0).backward()
        critics.step()
        if step >= 20:
            makers.zero_grad()
            generator_loss(critic, real, made).backward()
            makers.step()
    assert contrast.item() == pytest.approx(1, abs=0.3)


def test_a_critic_learns_that_an_action_does_not_belong_to_a_clip() -> None:
    """The same latents, under a key that they go with and under one that they do not."""
    torch.manual_seed(0)
    critic = Discriminator(width=16)
    critics = torch.optim.Adam(critic.parameters(), 2e-3, (0.0, 0.99))
    for step in range(60):
        bright = normal(step).abs()
        critics.zero_grad()
        right, wrong = clip(bright, 1.0), clip(-bright, 1.0)
        loss = critic_loss(critic, right, wrong, penalty=0.01)
        loss = loss + critic_loss(critic, clip(-bright), clip(bright), penalty=0.01)
        loss.backward()
        critics.step()
    bright = normal(999).abs()
    with torch.no_grad():
        assert (critic(clip(bright, 1.0)) > critic(clip(-bright, 1.0))).all()
        assert (critic(clip(-bright)) > critic(clip(bright))).all()


def test_journeys_go_on_from_what_they_played() -> None:
    model, play = small_model(), latent_play()
    journeys = RolloutPool(play, model, 3, 600, generator(0, 0))
    before = journeys.at.clone()
    for turn in range(3):
        made = journeys.advance(SMALL.sampler, generator(1, turn))
        assert made.latents.shape == (3, 16, 6, 8, 12)
        assert not journeys.seen.isnan().any()
    assert (journeys.at == before + 18).all()
    made.latents.sum().backward()
    assert model.dit.head.head.weight.grad is not None
    # Where the last denoising step was repeated, what is judged is what play goes on from.
    torch.testing.assert_close(
        made.latents[:, :, :3].detach(), journeys.seen[:, :, :3], atol=1e-3, rtol=1e-3
    )


def test_journeys_follow_the_actions_of_their_episode() -> None:
    """A journey that begins at latent frame f sees the actions that the episode's frames saw."""
    model, play = small_model(), latent_play()
    journeys = RolloutPool(play, model, 2, 600, generator(0, 0))
    for row in range(2):
        episode, frame = divmod(int(journeys.at[row]) - 1, 30)
        journeys.at[row] = episode * 30 + (frame + 1) % 15 + 3
    made = journeys.advance(SMALL.sampler, generator(1, 0))
    for row in range(2):
        episode, frame = divmod(int(journeys.at[row]), 30)  # of the first frame that was made
        rows = torch.stack(
            [play.keyboard[episode, 4 * f - 12 : 4 * f] for f in range(frame, frame + 6)]
        )
        torch.testing.assert_close(made.windows.keyboard[row], rows)


def test_every_so_often_a_journey_begins_anew() -> None:
    model, play = small_model(), latent_play()
    journeys = RolloutPool(play, model, 2, 8, generator(0, 0))  # each lives for four turns of two
    begun = [journeys.at.clone()]
    for turn in range(5):
        journeys.advance(SMALL.sampler, generator(1, turn))
        begun.append(journeys.at - 6 * (turn + 1))
    changed = [(one != other).tolist() for one, other in pairwise(begun)]
    assert changed == [[False] * 2, [False] * 2, [True, False], [False] * 2, [False, True]]


def test_some_journeys_rest() -> None:
    model, play = small_model(), latent_play()
    play.keyboard[:, :40] = 0
    play.mouse[:, :40] = 0
    journeys = RolloutPool(play, model, 24, 600, generator(0, 2))
    assert 0 < journeys.resting.sum() < 16
    made = journeys.advance(SMALL.sampler, generator(1, 0))
    assert not made.windows.keyboard[journeys.resting].any()
    assert made.windows.keyboard[~journeys.resting].flatten(1).any(1).all()
    true = journeys.true_clips(generator(1, 1))
    assert true.latents.shape == made.latents.shape
    assert not true.windows.keyboard[journeys.resting].any()
    still = (true.latents == true.latents[:, :, :1]).flatten(1).all(1)
    assert torch.equal(still, journeys.resting)


def test_a_critic_is_heard_once_it_has_learned_alone_and_resumes(tmp_path: Path) -> None:
    model, recipe = small_model(), DiscriminatorRecipe(steps=4, alone=1, weight=1.0, width=16)
    rivalry = AdversarialTrainer(latent_play(), model, recipe, 2, tmp_path)
    heard = [rivalry.loss(SMALL.sampler, generator(0, step)) for step in range(2)]
    assert [bool(loss) for loss in heard] == [False, True]
    rivalry.run.save()
    resumed = AdversarialTrainer(latent_play(), model, recipe, 2, tmp_path)
    assert resumed.run.step == 2
    for one, other in zip(rivalry.critic.parameters(), resumed.critic.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_critic_takes_part_in_some_of_the_last_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glassworld.training.objectives.adversarial.SAVE_EVERY", 1)
    shares = Shares(begin=0.5, redrawn=0, played=0, rested=0)
    critic = DiscriminatorRecipe(steps=4, every=2, alone=1, width=16)
    recipe = replace(SMALL, steps=6, batch=2, openings=2, shares=shares, critic=critic)
    train_transformer(latent_play(), recipe, tmp_path, small_model(), lambda *_: None)
    kept = torch.load(tmp_path / "critic" / "state.pt", weights_only=True)
    assert kept["step"] == 2
