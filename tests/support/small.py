"""A transformer that trains in no time, random episodes to train it on, and an exported world."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from glassworld.engine.sampling import FlowSchedule
from glassworld.training.data.latents import LatentEpisodes
from glassworld.training.data.segments import draw_segment
from glassworld.training.objectives.transformer import DiTRecipe
from glassworld.training.objectives.vae import VAE, VAERecipe
from glassworld.training.objectives.world_model import WorldModel, add_training_noise, predict
from glassworld.training.trainer import generator

SMALL = DiTRecipe(
    dim=32, ffn_dim=48, layers=2, heads=2, action_layers=1, vision_width=32, vision_layers=1
)
SMALL_VAE = VAERecipe(width=4)


def latent_episodes(episodes: int = 4, frames_per_block: int = 3) -> LatentEpisodes:
    random = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=random)

    return LatentEpisodes(
        frames_per_block,
        normal(episodes, 31, 16, 8, 12).half(),
        normal(episodes, 9, 16, 8, 12).half(),
        normal(16, 8, 12).half(),
        torch.zeros(episodes, 64, 96, 3, dtype=torch.uint8),
        normal(episodes, 121, 4),
        normal(episodes, 121, 2),
        normal(episodes, 121, 4),
    )


def latent_episodes_with_pause() -> LatentEpisodes:
    """Return episodes that start with 40 pixel frames without input."""
    episodes = latent_episodes()
    episodes.keyboard[:, :40] = 0
    episodes.mouse[:, :40] = 0
    return episodes


def small_model(frames_per_block: int = 3) -> WorldModel:
    torch.manual_seed(0)
    model = WorldModel(SMALL.spec, SMALL.vision, frames_per_block)
    torch.nn.init.normal_(model.dit.head.head.weight, std=0.1)
    return model


def predicted_flow(model: WorldModel) -> torch.Tensor:
    """Return the flow of one segment of `latent_episodes` at random noise levels."""
    segment = draw_segment(latent_episodes(), 2, 0, 3, generator(0, 0))
    noisy = add_training_noise(segment.latents, FlowSchedule(), generator(0, 1))
    with torch.no_grad():
        return predict(model, segment, segment.known, 0, noisy).flow


def small_vae(residual_blocks: int = 1) -> VAE:
    torch.manual_seed(0)
    return VAE(replace(SMALL_VAE, residual_blocks=residual_blocks).spec)


def write_random_shard(folder: Path, episodes: int, frames: int, height: int, width: int) -> None:
    """Write a shard of episodes with random frames and actions."""
    rng = np.random.default_rng(0)
    tensors = {"frames": rng.integers(0, 256, (episodes, frames, height, width, 3), np.uint8)}
    for name, columns in (("keyboard", 4), ("mouse", 2), ("pose", 4)):
        tensors[name] = rng.normal(size=(episodes, frames, columns)).astype(np.float32)
    save_file(tensors, folder / "shard-00000.safetensors")
