"""LoRA: nothing changes at first, merging keeps the function, and only the updates are trained."""

from pathlib import Path

import pytest
import torch
from torch import nn

from glassworld.models.transformer.layer import Layer
from glassworld.training.data.segments import draw_segment
from glassworld.training.objectives.world_model import ModelRollout, WorldModel
from glassworld.training.trainer import CosineSchedule, Trainer, generator
from glassworld.training.weights.lora import LoRALinear, add_lora, is_lora_factor, merge_lora
from tests.support.small import SMALL, latent_episodes, predicted_flow, small_model


def _with_updates(rank: int = 3) -> WorldModel:
    """Return the small model with updates that are not zero."""
    model = small_model()
    add_lora(model.dit, rank)
    random = torch.Generator().manual_seed(1)
    for name, weight in model.dit.named_parameters():
        if name.endswith("lora_b"):
            torch.nn.init.normal_(weight, std=0.2, generator=random)
    return model


def _feed_forward(model: WorldModel) -> nn.Sequential:
    """Return the feed-forward network of the first layer."""
    layer = model.dit.blocks[0]
    assert isinstance(layer, Layer)
    return layer.ffn


def _updated(model: WorldModel) -> LoRALinear:
    """Return the first layer of that network."""
    layer = _feed_forward(model)[0]
    assert isinstance(layer, LoRALinear)
    return layer


def _rollout(model: WorldModel) -> torch.Tensor:
    """Return three blocks generated with caches."""
    segment = draw_segment(latent_episodes(), 2, 0, 3, generator(0, 0))
    rollout = ModelRollout(model, segment, SMALL.sampler)
    rollout.generate(3, generator(0, 1))
    return torch.cat(rollout.blocks, 2)


def test_add_lora_changes_no_output_and_trains_the_factors_alone() -> None:
    model = small_model()
    before = predicted_flow(model)
    add_lora(model.dit, 4)
    torch.testing.assert_close(predicted_flow(model), before)
    trained = {name for name, weight in model.dit.named_parameters() if weight.requires_grad}
    assert trained == {name for name, _ in model.dit.named_parameters() if is_lora_factor(name)}
    layers = [layer for layer in model.dit.modules() if isinstance(layer, LoRALinear)]
    assert len(trained) == 2 * len(layers) > 20
    assert max(len(layer.lora_a) for layer in layers) == 4
    assert model.locate is not None
    assert all(weight.requires_grad for weight in model.locate.parameters())


def test_merge_lora_keeps_the_function_and_restores_the_layers() -> None:
    model, plain = _with_updates(), small_model()
    flow, frames = predicted_flow(model), _rollout(model)
    assert (flow - predicted_flow(plain)).std() > 0.1
    merge_lora(model.dit)
    torch.testing.assert_close(predicted_flow(model), flow, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(_rollout(model), frames, atol=1e-3, rtol=1e-3)
    assert list(model.dit.state_dict()) == list(plain.dit.state_dict())
    name = "blocks.0.ffn.0.weight"
    update = model.dit.state_dict()[name] - plain.dit.state_dict()[name]
    assert torch.linalg.matrix_rank(update, atol=1e-4) == 3


def test_trainer_saves_and_resumes_the_updates_alone(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")

    def trained(until: int) -> WorldModel:
        torch.manual_seed(3)
        model = small_model()
        add_lora(model.dit, 2)
        model.vision.requires_grad_(False)
        trainer = Trainer(tmp_path, model, CosineSchedule(4, 1e-2, warmup_steps=1))
        trainer.resume()
        for _ in trainer.steps("updates", until):
            tokens = torch.randn(1, 4, SMALL.dim, generator=generator(0, trainer.step))
            trainer.update((_feed_forward(model)(tokens) - 1).square().mean())
        trainer.use_average()
        return model

    first = trained(2)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert all(is_lora_factor(name) or "locate" in name for name in state["model"])
    resumed = trained(4)
    assert _updated(resumed).lora_b.abs().max() > _updated(first).lora_b.abs().max() > 0
    frozen = small_model().dit.state_dict()["blocks.0.ffn.0.weight"]
    assert torch.equal(_updated(resumed).base.weight, frozen)
