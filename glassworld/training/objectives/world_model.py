"""The world model in training: one forward over all blocks of a segment, or a rollout.

`predict` puts clean blocks and noisy blocks side by side in one sequence. A noisy block sees itself
and the clean blocks that the streaming window would still hold. `ModelRollout` generates one block
after the other with the caches, as the engine does. The simulator is deterministic, so the target
is known in both cases: it is what the simulator showed under the same actions.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from glassworld.engine.sampling import (
    TRAINING_STEPS,
    DenoisingStep,
    FlowSchedule,
    add_noise,
    flow_to_x0,
    renew_noise,
)
from glassworld.models.transformer.action import ActionWindows
from glassworld.models.transformer.dit import DiT
from glassworld.models.transformer.kv_cache import KeyValues, LayerCache
from glassworld.models.vision import VisionTower
from glassworld.specs import DiTSpec, VisionSpec
from glassworld.training.data.segments import Segment

ETA = 1.0
"""Share of the noise that the sampler draws again after a step: all, as in released models."""
FAINTEST_STEPS = 40
"""How many of the schedule's last steps are not trained.

With hardly any noise the error tells little about the world and much about the noise.
"""
MOUSE_GAIN = 10
"""A mouse value is 0.1 per frame: without this the tokens would drown it out at first."""


class WorldModel(nn.Module):
    """The parts that are trained together: the transformer and its image tower.

    `locate` is an auxiliary head, used in training alone: from the middle of the transformer it
    predicts where each frame was seen from. To predict this, the model has to know what lies around
    the corner.

    Parameters
    ----------
    dit
        Shape of the transformer.
    vision
        Shape of the image tower.
    frames_per_block
        Latent frames per block.
    pose_size
        Numbers that the auxiliary head predicts; 0: no head.
    """

    def __init__(
        self, dit: DiTSpec, vision: VisionSpec, frames_per_block: int = 3, pose_size: int = 4
    ) -> None:
        super().__init__()
        self.frames_per_block = frames_per_block
        self.dit, self.vision = DiT(dit), VisionTower(vision)
        self.locate: nn.Sequential | None = None
        if pose_size:
            self.locate = nn.Sequential(
                nn.LayerNorm(dit.dim),
                nn.Linear(dit.dim, dit.dim),
                nn.SiLU(),
                nn.Linear(dit.dim, pose_size),
            )
        nn.init.zeros_(self.dit.head.head.weight)
        for name, weight in self.dit.named_parameters():
            if name.endswith("mouse_mlp.0.weight"):
                weight.data[:, dit.dim :] *= MOUSE_GAIN

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.dit.head.head.weight.device

    @property
    def history(self) -> int:
        """Number of earlier blocks that a block sees."""
        return self.dit.spec.window // self.frames_per_block - 1

    def context(self, start_images: Tensor) -> list[KeyValues]:
        """Return the keys and values of the start images [B, 3, H, W] for every layer."""
        return self.dit.context_kv(self.vision(start_images))


class Prediction(NamedTuple):
    """Outputs for noisy frames: their flow [B, C, F, h, w] and their locations [B, F, P]."""

    flow: Tensor
    locations: Tensor


class NoisyLatents(NamedTuple):
    """Latents x [B, C, F, h, w] with the timestep and the noise level of each frame [B, F]."""

    x: Tensor
    timesteps: Tensor
    sigmas: Tensor

    def x0(self, flow: Tensor) -> Tensor:
        """Return the clean latents that the flow leads to: x - sigma flow."""
        return self.x - self.sigmas[:, None, :, None, None] * flow

    def loss(self, flow: Tensor, truth: Tensor) -> Tensor:
        """Return the mean squared error of the flow against the one that leads to the truth.

        It equals the error of the clean latents divided by sigma squared.
        """
        error = (self.x0(flow) - truth) / self.sigmas[:, None, :, None, None]
        return error.square().mean()


def block_visibility(
    clean: int, first: int, noisy: int, history: int, frames_per_block: int = 3
) -> Tensor:
    """Return which frame (row) sees which (column), bool [F, F].

    Parameters
    ----------
    clean
        Number of clean blocks, which start at block 0.
    first
        Block at which the noisy blocks start.
    noisy
        Number of noisy blocks, which follow the clean ones in the sequence.
    history
        Number of earlier blocks that a block sees.
    frames_per_block
        Latent frames per block.
    """
    block = torch.cat([torch.arange(clean), torch.arange(first, first + noisy)])
    block = block.repeat_interleave(frames_per_block)
    is_noisy = torch.arange(len(block)) >= clean * frames_per_block
    query, key = block[:, None], block[None, :]
    recent = key >= query - history
    before = torch.where(is_noisy[:, None], key < query, key <= query)
    return torch.where(is_noisy[None, :], is_noisy[:, None] & (key == query), before & recent)


def predict(
    model: WorldModel, segment: Segment, history: Tensor, first: int, noisy: NoisyLatents
) -> Prediction:
    """Predict the flow and the locations of the noisy blocks of a segment.

    Parameters
    ----------
    model
        To run.
    segment
        Conditions of all blocks.
    history
        Clean latents [B, C, F', h, w] of all blocks of the segment but the last.
    first
        Block of the segment at which the noisy blocks start.
    noisy
        The noisy blocks, up to the last one of the segment.
    """
    size, clean_frames = segment.frames_per_block, history.shape[2]
    count = noisy.x.shape[2] // size
    frames = torch.arange(segment.latents.shape[2], device=history.device)
    index = torch.cat([frames[:clean_frames], frames[first * size :]])
    mouse = segment.windows.mouse
    assert mouse is not None
    grid = (history.shape[-2] // 2, history.shape[-1] // 2)
    visible = block_visibility(clean_frames // size, first, count, model.history, size)
    x = torch.cat([history, noisy.x], 2)
    tokens: list[Tensor] = []
    middle = model.dit.blocks[(len(model.dit.blocks) - 1) // 2]
    with middle.register_forward_hook(lambda layer, inputs, output: tokens.append(output)):
        flow = model.dit(
            torch.cat([x, segment.condition[:, :, index]], 1),
            torch.cat([noisy.timesteps.new_zeros(len(x), clean_frames), noisy.timesteps], 1),
            model.dit.training_position(segment.start + index, grid, visible),
            ActionWindows(segment.windows.keyboard[:, index], mouse[:, index]),
            model.context(segment.start_images),
        )
    assert flow is not None
    features = tokens[0][:, clean_frames:].mean(2)
    locations = features[..., :0] if model.locate is None else model.locate(features)
    return Prediction(flow[:, :, clean_frames:], locations)


def add_training_noise(
    truth: Tensor, schedule: FlowSchedule, random: torch.Generator, frames_per_block: int = 3
) -> NoisyLatents:
    """Add noise to each block at a random level of the schedule, without the faintest ones.

    The few levels of the sampler would be enough for its steps. Training all levels leaves the
    choice of the steps, and their number, to the sampler.
    """
    batch_size, blocks = truth.shape[0], truth.shape[2] // frames_per_block
    table = torch.from_numpy(schedule.sigmas[: TRAINING_STEPS - FAINTEST_STEPS]).float()
    levels = table[torch.randint(len(table), (batch_size, blocks), generator=random)]
    sigmas = levels.repeat_interleave(frames_per_block, 1).to(truth.device)
    level = sigmas[:, None, :, None, None]
    noise = noise_like(truth, random)
    return NoisyLatents((1 - level) * truth + level * noise, 1000 * sigmas, sigmas)


def noise_like(latents: Tensor, random: torch.Generator) -> Tensor:
    """Draw normal noise of the shape of `latents`, on their device.

    On a GPU a generator of its own, seeded from `random`, avoids a transfer from the host.
    """
    device, device_random = latents.device, random
    if device.type == "cuda":
        seed = int(torch.randint(2**62, (), generator=random))
        device_random = torch.Generator(device).manual_seed(seed)
    return torch.randn(latents.shape, generator=device_random, device=device)


class ModelRollout:
    """A rollout of the model over a segment, block by block with caches, as the engine runs it.

    Parameters
    ----------
    model
        To run.
    segment
        Conditions of the blocks, and the truth.
    steps
        Steps of the sampler.

    Attributes
    ----------
    blocks
        Latents [B, C, F, h, w] of each block so far.
    step_inputs
        The noisy latents that every denoising step of each generated block began with.
    """

    def __init__(
        self, model: WorldModel, segment: Segment, steps: tuple[DenoisingStep, ...]
    ) -> None:
        self.model, self.segment, self.steps = model, segment, steps
        rows, columns = segment.latents.shape[-2] // 2, segment.latents.shape[-1] // 2
        self.grid = (rows, columns)
        self.caches: list[LayerCache] = model.dit.empty_caches(len(segment.latents), rows * columns)
        with torch.no_grad():
            self.context = model.context(segment.start_images)
        self.blocks: list[Tensor] = []
        self.step_inputs: list[list[Tensor]] = []

    @property
    def remaining(self) -> int:
        """Number of blocks of the segment that are still to be generated."""
        return self.segment.latents.shape[2] // self.segment.frames_per_block - len(self.blocks)

    @torch.no_grad()
    def prefill(self, blocks: int) -> None:
        """Use the truth for the first blocks."""
        for index in range(blocks):
            part = self.segment.blocks(index, index + 1)
            self._forward(part.latents, part, 0.0, output=False)
            self.blocks.append(part.latents)

    @torch.no_grad()
    def generate(self, blocks: int, random: torch.Generator) -> None:
        """Generate the next blocks."""
        for _ in range(blocks):
            part = self.segment.blocks(len(self.blocks), len(self.blocks) + 1)
            x = noise_like(part.latents, random)
            inputs = []
            for index, step in enumerate(self.steps):
                inputs.append(x)
                flow = self._forward(x, part, step.timestep, output=True)
                assert flow is not None
                x0 = flow_to_x0(x, flow, step)
                if index + 1 < len(self.steps):
                    new_noise = noise_like(x, random)
                    noise = renew_noise(x, x0, step, new_noise, ETA)
                    x = add_noise(x0, noise, self.steps[index + 1])
            self._forward(x0, part, 0.0, output=False)
            self.blocks.append(x0)
            self.step_inputs.append(inputs)

    def _forward(self, x: Tensor, part: Segment, timestep: float, output: bool) -> Tensor | None:
        """Run the transformer on a block; without an output, to fill the caches."""
        return self.model.dit(
            torch.cat([x, part.condition], 1),
            torch.full((len(x), 1), timestep, device=x.device),
            # Positions count from the segment's first frame: the caches hold nothing before it.
            self.model.dit.stream_position(
                part.start - self.segment.start, part.frames_per_block, self.grid
            ),
            part.windows,
            self.context,
            self.caches,
            output=output,
        )
