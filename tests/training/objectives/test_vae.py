"""The VAE's training: latents can be held where another network already knows them."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from glassworld.training.data.dataset import Play, to_pixels
from glassworld.training.objectives.vae import VAE, VAERecipe, train_vae


def test_a_vae_that_is_to_stay_moves_its_latents_less(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shard = {
        "frames": rng.integers(0, 256, (2, 5, 32, 32, 3), np.uint8),
        "keyboard": np.zeros((2, 5, 4), np.float32),
        "mouse": np.zeros((2, 5, 2), np.float32),
        "pose": np.zeros((2, 5, 3), np.float32),
    }
    save_file(shard, tmp_path / "shard-00000.safetensors")
    play = Play(tmp_path)
    recipe = VAERecipe(width=8, picture_steps=12, pictures=2, clip_steps=0, long_steps=0)
    torch.manual_seed(0)
    start = VAE(recipe.spec)
    pixels = to_pixels(play.frames)

    def moved(stay_weight: float) -> float:
        folder = tmp_path / str(stay_weight)
        vae = train_vae(play, replace(recipe, stay_weight=stay_weight), folder, deepcopy(start))
        with torch.no_grad():
            return float((vae.encoder(pixels) - start.encoder(pixels)).square().mean())

    assert moved(100.0) < 0.5 * moved(0.0)
