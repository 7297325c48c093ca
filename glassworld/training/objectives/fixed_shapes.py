"""Training batches of one shape, whatever their history, so that a step is compiled once.

Examples differ in how many clean and how many noisy blocks they have. Here every batch is padded to
the most of each. A padded frame is seen by nobody, sees itself alone and has no loss. Attention
takes a dense mask: it computes pairs that are masked out, but all batches run the same kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from glassworld.engine.sampling import FlowSchedule
from glassworld.models.transformer.action import ActionWindows
from glassworld.models.transformer.layer import BlockPosition
from glassworld.models.transformer.rope import RotaryTable
from glassworld.training.objectives.history_augmentation import TRAINED_FRAMES, TrainingBatch
from glassworld.training.objectives.world_model import (
    WorldModel,
    add_training_noise,
    block_visibility,
)

StepLosses = Callable[[WorldModel, "FixedBatch"], tuple[Tensor, Tensor]]
"""Computes the squared errors of flow and locations of a batch."""


class FixedBatch(NamedTuple):
    """The tensors of one forward: clean frames, then noisy ones, both padded in front.

    Attributes
    ----------
    x
        Clean and noisy latents [B, C, F, h, w].
    condition
        [B, 4 + C, F, h, w].
    timesteps
        [B, F], 0 for clean frames.
    sigmas
        Noise levels of the noisy frames [B, N]; 1 for padding.
    truth
        Clean latents of the noisy frames [B, C, N, h, w].
    locations
        [B, N, P].
    share
        Weight of each noisy frame in a mean over the frames [N]; 0 for padding.
    keyboard
        [B, F, rows, keys].
    mouse
        [B, F, rows, 2], or no columns.
    start_images
        [B, 3, H, W].
    visible
        Which frame sees which, bool [F, F].
    rotary
        Of self-attention.
    action_rotary
        Of the action modules.
    """

    x: Tensor
    condition: Tensor
    timesteps: Tensor
    sigmas: Tensor
    truth: Tensor
    locations: Tensor
    share: Tensor
    keyboard: Tensor
    mouse: Tensor
    start_images: Tensor
    visible: Tensor
    rotary: RotaryTable
    action_rotary: RotaryTable


def most_frames(history: int, frames_per_block: int) -> tuple[int, int]:
    """Return the most clean and the most noisy latent frames of a batch.

    Parameters
    ----------
    history
        Earlier blocks that a block sees.
    frames_per_block
        Latent frames per block.
    """
    noisy = TRAINED_FRAMES // frames_per_block + 1  # one more at the start of an episode
    return (history + noisy - 1) * frames_per_block, noisy * frames_per_block


def fixed_batch(
    model: WorldModel, batch: TrainingBatch, random: torch.Generator, most: tuple[int, int]
) -> FixedBatch:
    """Add noise to the last blocks of a batch and pad it to the most clean and noisy frames."""
    segment, history, first = batch
    size, start = segment.frames_per_block, first * segment.frames_per_block
    truth = segment.latents[:, :, start:]
    noisy = add_training_noise(truth, FlowSchedule(), random, size)
    clean_frames, noisy_frames = history.shape[2], truth.shape[2]
    before, between = most[0] - clean_frames, most[1] - noisy_frames

    def padded(clean: Tensor, other: Tensor, axis: int) -> Tensor:
        parts = [_pad(clean, axis, before), _pad(other, axis, between)]
        return torch.cat(parts, axis)

    def chosen(values: Tensor, axis: int) -> Tensor:
        clean = values.narrow(axis, 0, clean_frames)
        return padded(clean, values.narrow(axis, start, noisy_frames), axis)

    mouse = segment.windows.mouse
    assert mouse is not None
    frames = torch.arange(segment.latents.shape[2], device=truth.device)
    grid = (truth.shape[-2] // 2, truth.shape[-1] // 2)
    position = model.dit.training_position(chosen(segment.start + frames, 0), grid)
    share = _pad(truth.new_full((noisy_frames,), 1 / noisy_frames), 0, between)
    sigmas = F.pad(noisy.sigmas, (between, 0), value=1.0)
    return FixedBatch(
        padded(history, noisy.x, 2),
        chosen(segment.condition, 2),
        padded(noisy.timesteps.new_zeros(len(truth), clean_frames), noisy.timesteps, 1),
        sigmas,
        _pad(truth, 2, between),
        _pad(segment.locations[:, start:], 1, between),
        share,
        chosen(segment.windows.keyboard, 1),
        chosen(mouse, 1),
        segment.start_images,
        _visible(model, clean_frames // size, first, noisy_frames // size, (before, between)).to(
            truth.device
        ),
        position.rotary,
        position.action_rotary,
    )


def _pad(values: Tensor, axis: int, count: int) -> Tensor:
    """Put `count` zeros in front, along an axis."""
    return F.pad(values, (*[0, 0] * (values.dim() - 1 - axis), count, 0))


def _visible(
    model: WorldModel, clean: int, first: int, noisy: int, padding: tuple[int, int]
) -> Tensor:
    """Return which frame sees which, with padding before the clean and before the noisy frames."""
    size = model.frames_per_block
    own = block_visibility(clean, first, noisy, model.history, size)
    real = torch.cat(
        [
            torch.arange(clean * size) + padding[0],
            torch.arange(noisy * size) + padding[0] + clean * size + padding[1],
        ]
    )
    visible = torch.eye(len(real) + sum(padding), dtype=torch.bool)
    visible[real[:, None], real] = own
    return visible


def fixed_losses(model: WorldModel, batch: FixedBatch) -> tuple[Tensor, Tensor]:
    """Return the squared errors of flow and locations, as the plain step computes them."""
    dit, grid = model.dit, (batch.x.shape[-2] // 2, batch.x.shape[-1] // 2)
    per_frame = grid[0] * grid[1]
    mask = batch.visible.repeat_interleave(per_frame, 0).repeat_interleave(per_frame, 1)
    position = BlockPosition(
        batch.rotary, batch.action_rotary, visible=batch.visible, token_mask=mask
    )
    tokens = dit.embed_patches(torch.cat([batch.x, batch.condition], 1))
    embedded = dit.time_embedding(dit.sinusoid(batch.timesteps).to(tokens.dtype))
    time = dit.time_projection(embedded).unflatten(-1, (6, -1))
    windows, context = ActionWindows(batch.keyboard, batch.mouse), model.context(batch.start_images)
    middle = tokens
    for index, layer in enumerate(dit.blocks):
        tokens = layer(tokens, time, position, windows, context[index], None)
        middle = tokens if index == (len(dit.blocks) - 1) // 2 else middle
    noisy = batch.truth.shape[2]
    flow = dit.head(tokens, embedded, grid)[:, :, -noisy:]
    sigmas = batch.sigmas[:, None, :, None, None]
    error = (batch.x[:, :, -noisy:] - sigmas * flow - batch.truth) / sigmas
    flow_loss = (error.square().mean((0, 1, 3, 4)) * batch.share).sum()
    if model.locate is None:
        return flow_loss, flow_loss.new_zeros(())
    locations = model.locate(middle[:, -noisy:].mean(2))
    location_error = (locations - batch.locations).square().mean((0, 2))
    return flow_loss, (location_error * batch.share).sum()


def compiled_losses(device: torch.device, backend: str = "inductor") -> StepLosses:
    """Return `fixed_losses`, compiled when it first runs; on a GPU also captured as CUDA graphs."""
    mode = "reduce-overhead" if device.type == "cuda" else None
    losses: StepLosses = torch.compile(
        fixed_losses, dynamic=False, fullgraph=True, mode=mode, backend=backend
    )
    return losses
