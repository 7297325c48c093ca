"""Batches of one shape: padded and compiled, losses and gradients are those of the plain step."""

import pytest
import torch

from glassworld.training.data.segments import draw_segment
from glassworld.training.objectives.fixed_shapes import (
    compiled_losses,
    fixed_batch,
    fixed_losses,
    most_frames,
)
from glassworld.training.objectives.history_augmentation import (
    HistoryMix,
    TrainingBatch,
    draw_training_batch,
)
from glassworld.training.objectives.transformer import plain_losses, training_losses
from glassworld.training.objectives.world_model import WorldModel
from glassworld.training.trainer import generator
from tests.support.small import SMALL, latent_episodes, latent_episodes_with_pause, small_model

KINDS = {
    "truth": HistoryMix(from_start=0, redrawn=0, rollout=0, at_rest=0),
    "from the start": HistoryMix(from_start=1, redrawn=0, rollout=0, at_rest=0),
    "rollout": HistoryMix(from_start=0, redrawn=0, rollout=1, at_rest=0),
    "rollout from the start": HistoryMix(from_start=1, redrawn=0, rollout=1, at_rest=0),
    "at rest": HistoryMix(from_start=0, redrawn=0, rollout=0, at_rest=1),
}


def _batch(model: WorldModel, kind: str) -> TrainingBatch:
    episodes = latent_episodes_with_pause()
    return draw_training_batch(model, episodes, 2, KINDS[kind], SMALL.sampler, generator(0, 4))


def _gradients(model: WorldModel, losses: tuple[torch.Tensor, torch.Tensor]) -> list[torch.Tensor]:
    model.zero_grad(set_to_none=True)
    (losses[0] + 0.1 * losses[1]).backward()
    return [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]


@pytest.mark.parametrize(
    "kind",
    [
        kind if kind == "from the start" else pytest.param(kind, marks=pytest.mark.slow)
        for kind in KINDS
    ],
)
def test_fixed_losses_are_those_of_the_plain_step(kind: str) -> None:
    model = small_model()
    batch = _batch(model, kind)
    most = most_frames(model.history, 3)
    padded = fixed_batch(model, batch, generator(0, 9), most)
    assert padded.x.shape[2] == sum(most)
    losses, plain = fixed_losses(model, padded), plain_losses(model, batch, generator(0, 9))
    torch.testing.assert_close(losses, plain, atol=1e-5, rtol=1e-5)
    gradients = _gradients(model, losses)
    expected = _gradients(model, plain_losses(model, batch, generator(0, 9)))
    torch.testing.assert_close(gradients, expected, atol=1e-4, rtol=1e-3)


def test_fixed_batches_of_all_kinds_have_one_shape() -> None:
    model = small_model()
    most = most_frames(model.history, 3)
    batches = [fixed_batch(model, _batch(model, kind), generator(0, 1), most) for kind in KINDS]
    assert len({tuple(part.shape for part in batch[:11]) for batch in batches}) == 1


def test_most_frames_hold_blocks_of_one_latent_frame_too() -> None:
    model = small_model(frames_per_block=1)
    episodes = latent_episodes(frames_per_block=1)
    most = most_frames(model.history, 1)
    for step, mix in enumerate((KINDS["truth"], KINDS["from the start"], KINDS["rollout"])):
        random = generator(0, step)
        batch = draw_training_batch(model, episodes, 2, mix, SMALL.sampler, random)
        padded = fixed_batch(model, batch, generator(0, 9), most)
        plain = plain_losses(model, batch, generator(0, 9))
        torch.testing.assert_close(fixed_losses(model, padded), plain, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_training_losses_at_fixed_shapes_are_the_plain_ones() -> None:
    model, episodes = small_model(), latent_episodes()
    for step in range(2):
        plain = training_losses(model, episodes, SMALL, generator(0, step))
        fixed = training_losses(model, episodes, SMALL, generator(0, step), fixed_losses)
        torch.testing.assert_close(fixed, plain, atol=1e-5, rtol=1e-5)


def test_fixed_losses_ignore_what_the_padding_holds() -> None:
    model = small_model()
    segment = draw_segment(latent_episodes(), 2, 0, 2, generator(0, 0))
    batch = TrainingBatch(segment, segment.known, 0)
    padded = fixed_batch(model, batch, generator(0, 9), most_frames(model.history, 3))
    x = padded.x.clone()
    x[:, :, 0] = 100.0
    torch.testing.assert_close(
        fixed_losses(model, padded._replace(x=x)), fixed_losses(model, padded)
    )


@pytest.mark.slow  # torch traces forward and backward
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, on import
def test_compiled_losses_are_those_of_the_plain_step_and_share_graphs() -> None:
    model = small_model()
    # Without the C++ that would take minutes here.
    losses = compiled_losses(torch.device("cpu"), backend="aot_eager")
    most = most_frames(model.history, 3)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    for kind in ("truth", "from the start", "rollout"):
        batch = _batch(model, kind)
        gradients = _gradients(
            model, losses(model, fixed_batch(model, batch, generator(0, 9), most))
        )
        expected = _gradients(model, plain_losses(model, batch, generator(0, 9)))
        torch.testing.assert_close(gradients, expected, atol=1e-4, rtol=1e-3)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert graphs < 3  # fewer than kinds of batches
