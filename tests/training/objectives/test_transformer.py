"""The transformer's training: first blocks in every step, the discriminator in some of the last."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from glassworld.training.objectives.adversarial import DiscriminatorRecipe
from glassworld.training.objectives.history_augmentation import HistoryMix
from glassworld.training.objectives.transformer import train_transformer, training_losses
from glassworld.training.trainer import generator
from tests.support.small import SMALL, latent_episodes, small_model


def test_training_losses_include_first_blocks() -> None:
    """With examples that never start an episode, only first blocks see the start image's mask."""
    model, episodes = small_model(), latent_episodes()
    recipe = replace(SMALL, batch_size=2, first_blocks=5, history_mix=HistoryMix(0, 0, 0, 0))
    starts = 0

    def count_starts(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        nonlocal starts
        starts += int(inputs[0][:, 16, 0].flatten(1).all(1).sum())

    with model.dit.register_forward_pre_hook(count_starts):
        flow_loss, location_loss = training_losses(model, episodes, recipe, generator(0, 0))
    assert starts == 5
    (flow_loss + location_loss).backward()
    assert model.dit.head.head.weight.grad is not None


@pytest.mark.slow
def test_train_transformer_uses_the_discriminator_in_some_of_the_last_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glassworld.training.objectives.adversarial.SAVE_EVERY_SECONDS", 0.0)
    recipe = replace(
        SMALL,
        steps=6,
        batch_size=2,
        first_blocks=2,
        history_mix=HistoryMix(from_start=0.5, redrawn=0, rollout=0, at_rest=0),
        discriminator=DiscriminatorRecipe(steps=4, every=2, warmup_steps=1, width=16),
    )
    train_transformer(latent_episodes(), recipe, tmp_path, small_model(), lambda *_: None)
    state = torch.load(tmp_path / "critic" / "state.pt", weights_only=True)
    assert state["step"] == 2
