"""A transformer that trains in no time, and play of noise to train it on."""

import torch

from glassworld.training.data.latents import LatentPlay
from glassworld.training.objectives.transformer import DiTRecipe
from glassworld.training.objectives.world_model import WorldModel

SMALL = DiTRecipe(
    dim=32, ffn_dim=48, layers=2, heads=2, action_layers=1, vision_width=32, vision_layers=1
)


def latent_play(episodes: int = 4) -> LatentPlay:
    random = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=random)

    return LatentPlay(
        normal(episodes, 31, 16, 8, 12).half(),
        normal(episodes, 9, 16, 8, 12).half(),
        normal(16, 8, 12).half(),
        torch.zeros(episodes, 64, 96, 3, dtype=torch.uint8),
        normal(episodes, 121, 4),
        normal(episodes, 121, 2),
        normal(episodes, 121, 3),
    )


def small_model() -> WorldModel:
    torch.manual_seed(0)
    model = WorldModel(SMALL.spec, SMALL.vision)
    torch.nn.init.normal_(model.dit.head.head.weight, std=0.1)
    return model
