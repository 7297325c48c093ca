"""Adversarial training: a warmup without an effect on the model, and resuming."""

import time
from pathlib import Path

import pytest
import torch

from glassworld.training.objectives.adversarial import AdversarialTrainer, DiscriminatorRecipe
from glassworld.training.trainer import generator
from tests.support.small import SMALL, latent_episodes, small_model


def test_adversarial_loss_is_zero_in_the_warmup_and_the_discriminator_resumes(
    tmp_path: Path,
) -> None:
    model, episodes = small_model(), latent_episodes()
    recipe = DiscriminatorRecipe(steps=4, warmup_steps=1, weight=1.0, width=16)
    adversarial = AdversarialTrainer(episodes, model, recipe, 2, tmp_path)
    losses = [adversarial.loss(SMALL.sampler, generator(0, step)) for step in range(2)]
    assert [bool(loss) for loss in losses] == [False, True]
    adversarial.trainer.save()
    resumed = AdversarialTrainer(episodes, model, recipe, 2, tmp_path)
    assert resumed.trainer.step == 2
    weights = adversarial.discriminator.state_dict()
    for name, weight in resumed.discriminator.state_dict().items():
        assert torch.equal(weight, weights[name])


def test_discriminator_is_saved_as_often_as_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = DiscriminatorRecipe(steps=4, warmup_steps=1, width=16)
    adversarial = AdversarialTrainer(latent_episodes(), small_model(), recipe, 2, tmp_path)
    now = time.monotonic()
    for step, seconds in enumerate((1, 46, 90)):
        monkeypatch.setattr(time, "monotonic", lambda: now + seconds)  # noqa: B023 - called at once
        adversarial.loss(SMALL.sampler, generator(0, step))
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    assert saved["step"] == 2  # after 46 seconds; 44 more are too few
