"""The VAE: latents can be rescaled exactly, and anchored where another network knows them."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from glassworld.training.data.dataset import EpisodeDataset, to_pixels
from glassworld.training.objectives.vae import VAE, VAERecipe, rescale_latents, train_vae
from tests.support.small import small_vae, write_random_shard


def test_rescale_latents_changes_latents_and_keeps_reconstructions() -> None:
    vae = small_vae()
    pixels = torch.rand(1, 3, 5, 32, 32) * 2 - 1
    with torch.no_grad():
        before = vae.encoder(pixels)
        reconstruction = vae.decoder(before)
        shift, scale = torch.randn(16), torch.rand(16) + 0.5
        rescale_latents(vae, shift, scale)
        after = vae.encoder(pixels)
        per_channel = (1, 16, 1, 1, 1)
        expected = (before - shift.view(per_channel)) / scale.view(per_channel)
        torch.testing.assert_close(after, expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(vae.decoder(after), reconstruction, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_train_vae_with_an_anchor_moves_latents_less(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    write_random_shard(tmp_path, episodes=2, frames=5, height=32, width=32)
    dataset = EpisodeDataset(tmp_path)
    recipe = VAERecipe(width=8, image_steps=12, image_batch_size=2, clip_steps=0, long_steps=0)
    torch.manual_seed(0)
    start = VAE(recipe.spec)
    pixels = to_pixels(dataset.frames)

    def distance_moved(anchor_weight: float) -> float:
        folder = tmp_path / str(anchor_weight)
        anchored = replace(recipe, anchor_weight=anchor_weight)
        vae = train_vae(dataset, anchored, folder, deepcopy(start))
        with torch.no_grad():
            return float((vae.encoder(pixels) - start.encoder(pixels)).square().mean())

    assert distance_moved(100.0) < 0.5 * distance_moved(0.0)
