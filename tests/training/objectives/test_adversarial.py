"""Adversarial training: a warmup without an effect on the model, and resuming."""

from pathlib import Path

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
