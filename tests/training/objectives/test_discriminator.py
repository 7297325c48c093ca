"""The discriminator: what it learns to tell apart, and what its loss teaches a generator."""

import pytest
import torch

from glassworld.models.transformer.action import ActionWindows
from glassworld.training.objectives.discriminator import (
    Discriminator,
    LatentClip,
    discriminator_loss,
    generator_loss,
)
from glassworld.training.trainer import generator


def _clip(latents: torch.Tensor, key: float = 0.0) -> LatentClip:
    rows = (len(latents), 6, 12)
    return LatentClip(latents, ActionWindows(torch.full((*rows, 4), key), torch.zeros(*rows, 2)))


def _normal(seed: int) -> torch.Tensor:
    return torch.randn(8, 16, 6, 4, 6, generator=generator(3, seed))


@pytest.mark.slow
def test_generator_loss_teaches_what_the_discriminator_misses() -> None:
    """Generated clips have a fifth of the contrast: the generator learns to raise it."""
    torch.manual_seed(0)
    discriminator, contrast = Discriminator(width=16), torch.tensor(0.2, requires_grad=True)
    discriminator_optimizer = torch.optim.Adam(discriminator.parameters(), 2e-3, (0.0, 0.99))
    generator_optimizer = torch.optim.Adam([contrast], 2e-2, (0.0, 0.99))
    for step in range(120):
        real, generated = _clip(_normal(2 * step)), _clip(contrast * _normal(2 * step + 1))
        discriminator_optimizer.zero_grad()
        discriminator_loss(discriminator, real, generated, gradient_penalty=1.0).backward()
        discriminator_optimizer.step()
        if step >= 20:
            generator_optimizer.zero_grad()
            generator_loss(discriminator, real, generated).backward()
            generator_optimizer.step()
    assert contrast.item() == pytest.approx(1, abs=0.3)


@pytest.mark.slow
def test_discriminator_learns_that_actions_do_not_belong_to_a_clip() -> None:
    """The same latents, under a key that goes with them and under one that does not."""
    torch.manual_seed(0)
    discriminator = Discriminator(width=16)
    optimizer = torch.optim.Adam(discriminator.parameters(), 2e-3, (0.0, 0.99))
    for step in range(20):
        bright = _normal(step).abs()
        pairs = [(_clip(bright, 1.0), _clip(-bright, 1.0)), (_clip(-bright), _clip(bright))]
        losses = [discriminator_loss(discriminator, *pair, 0.01) for pair in pairs]
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        optimizer.step()
    bright = _normal(999).abs()
    with torch.no_grad():
        assert (discriminator(_clip(bright, 1.0)) > discriminator(_clip(-bright, 1.0))).all()
        assert (discriminator(_clip(-bright)) > discriminator(_clip(bright))).all()
