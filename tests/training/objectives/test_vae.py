"""The VAE: latents can be rescaled exactly, and anchored where another network knows them."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from glassworld.training.data.dataset import EpisodeDataset, to_pixels
from glassworld.training.objectives.vae import (
    NORMALIZED_CLIPS,
    VAE,
    VAERecipe,
    normalize_latents,
    rescale_latents,
    train_vae,
)
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


def test_normalize_latents_counts_all_clips_first_and_last() -> None:
    dark, light = (
        torch.randint(0, 60, (2, 5, 32, 32, 3)),
        torch.randint(150, 256, (2, 5, 32, 32, 3)),
    )
    frames = torch.cat([dark, light]).to(torch.uint8)
    vae = small_vae()
    normalize_latents(vae, frames)
    with torch.no_grad():
        latents = vae.encoder(to_pixels(frames))
    torch.testing.assert_close(latents.mean((0, 2, 3, 4)), torch.zeros(16), atol=1e-3, rtol=0)
    torch.testing.assert_close(latents.std((0, 2, 3, 4)), torch.ones(16), atol=1e-3, rtol=0)


def test_normalize_latents_takes_an_even_sample_of_many_clips() -> None:
    count = 2 * NORMALIZED_CLIPS - 1  # so that every second clip is taken
    taken = torch.randint(0, 100, (NORMALIZED_CLIPS, 1, 16, 16, 3))
    frames = torch.full((count, 1, 16, 16, 3), 255)
    frames[::2] = taken
    vae, expected = small_vae(), small_vae()
    normalize_latents(vae, frames.to(torch.uint8))
    normalize_latents(expected, taken.to(torch.uint8))
    torch.testing.assert_close(vae.encoder.conv1.weight, expected.encoder.conv1.weight)


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
