"""A grown transformer computes what the small one did, and then all of it learns."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from glassworld.training.objectives.transformer import training_losses
from glassworld.training.objectives.world_model import WorldModel
from glassworld.training.trainer import generator
from glassworld.training.weights.net2net import can_grow, grow, grown_layer_indices
from tests.support.small import SMALL, latent_episodes, predicted_flow, small_model

LARGE = replace(SMALL, layers=5, ffn_dim=80)


def test_grow_keeps_the_output() -> None:
    small, large = small_model(), WorldModel(LARGE.spec, LARGE.vision)
    grow(small.dit, large.dit)
    large.vision.load_state_dict(small.vision.state_dict())
    torch.testing.assert_close(predicted_flow(large), predicted_flow(small), atol=1e-5, rtol=1e-5)


def gradient(layer: nn.Module, linear: str) -> Tensor:
    weights = layer.get_parameter(f"{linear}.weight")
    assert weights.grad is not None
    return weights.grad


def test_grow_gives_gradients_to_everything_new() -> None:
    small, large = small_model(), WorldModel(LARGE.spec, LARGE.vision)
    grow(small.dit, large.dit)
    recipe = replace(LARGE, batch_size=2, first_blocks=2)
    loss, _ = training_losses(large, latent_episodes(), recipe, generator(0, 0))
    loss.backward()
    old = grown_layer_indices(SMALL.spec, LARGE.spec)
    for index, layer in enumerate(large.dit.blocks):
        if index in old:
            assert gradient(layer, "ffn.2")[:, SMALL.ffn_dim :].abs().max() > 0
        else:
            for output in ("self_attn.o", "cross_attn.o", "ffn.2"):
                assert gradient(layer, output).abs().max() > 0


@pytest.mark.parametrize(
    ("with_actions", "small", "large", "indices"),
    [(3, 6, 8, [0, 1, 2, 4, 6, 7]), (3, 6, 6, [0, 1, 2, 3, 4, 5]), (1, 2, 4, [0, 3])],
)
def test_grown_layer_indices_keep_their_order(
    with_actions: int, small: int, large: int, indices: list[int]
) -> None:
    recipe = replace(SMALL, action_layers=with_actions)
    specs = (replace(recipe, layers=layers).spec for layers in (small, large))
    assert grown_layer_indices(*specs) == indices


@pytest.mark.parametrize(
    "change", [{"dim": 64}, {"layers": 1}, {"ffn_dim": 32}, {"heads": 4}, {"window": 6}]
)
def test_can_grow_refuses_other_changes(change: dict[str, Any]) -> None:
    assert not can_grow(SMALL.spec, replace(SMALL, **change).spec)
