"""A grown transformer begins where the small one was, and then learns with all it has."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from glassworld.engine.sampling import FlowSchedule
from glassworld.training.data.segments import BLOCK, draw
from glassworld.training.export import export_world
from glassworld.training.objectives.transformer import losses
from glassworld.training.objectives.vae import VAE, VAERecipe
from glassworld.training.objectives.world_model import WorldModel, forward, training_noise
from glassworld.training.trainer import generator
from glassworld.training.weights.net2net import can_grow, grow, grown_places
from glassworld.training.weights.warm_start import start_model
from tests.support.small import SMALL, latent_play, small_model

LARGE = replace(SMALL, layers=5, ffn_dim=80)


def answer(model: WorldModel) -> torch.Tensor:
    stretch = draw(latent_play(), 2, 0, 3, generator(0, 0))
    noisy = training_noise(stretch.latents, FlowSchedule(), generator(0, 1))
    with torch.no_grad():
        return forward(model, stretch, stretch.latents[:, :, :-BLOCK], 0, noisy).flow


def test_a_grown_transformer_says_what_the_small_one_said() -> None:
    small, large = small_model(), WorldModel(LARGE.spec, LARGE.vision)
    grow(small.dit, large.dit)
    large.vision.load_state_dict(small.vision.state_dict())
    torch.testing.assert_close(answer(large), answer(small), atol=1e-5, rtol=1e-5)


def test_everything_new_learns() -> None:
    small, large = small_model(), WorldModel(LARGE.spec, LARGE.vision)
    grow(small.dit, large.dit)
    loss, _ = losses(large, latent_play(), LARGE, generator(0, 0))
    loss.backward()
    new = [index for index in range(5) if index not in grown_places(SMALL.spec, LARGE.spec)]
    for index in new:
        layer = large.dit.blocks[index]
        for output in (layer.self_attn.o, layer.cross_attn.o, layer.ffn[-1]):
            assert output.weight.grad.abs().max() > 0
    for index in grown_places(SMALL.spec, LARGE.spec):
        assert large.dit.blocks[index].ffn[-1].weight.grad[:, SMALL.ffn_dim :].abs().max() > 0


@pytest.mark.parametrize(
    ("acting", "small", "large", "places"),
    [(3, 6, 8, [0, 1, 2, 4, 6, 7]), (3, 6, 6, [0, 1, 2, 3, 4, 5]), (1, 2, 4, [0, 3])],
)
def test_old_layers_keep_their_order(
    acting: int, small: int, large: int, places: list[int]
) -> None:
    recipe = replace(SMALL, action_layers=acting)
    sizes = (replace(recipe, layers=layers).spec for layers in (small, large))
    assert grown_places(*sizes) == places


@pytest.mark.parametrize(
    "change", [{"dim": 64}, {"layers": 1}, {"ffn_dim": 32}, {"heads": 4}, {"window": 6}]
)
def test_nothing_else_grows(change: dict[str, int]) -> None:
    assert not can_grow(SMALL.spec, replace(SMALL, **change).spec)


def test_a_training_starts_from_a_smaller_world(tmp_path: Path) -> None:
    small = small_model()
    export_world(VAE(VAERecipe(width=8).spec), small, SMALL, tmp_path)
    large = WorldModel(LARGE.spec, LARGE.vision)
    start_model(large, tmp_path)
    torch.testing.assert_close(answer(large), answer(small), atol=2e-2, rtol=2e-2)
