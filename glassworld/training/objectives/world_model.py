"""How the transformer runs in training: all blocks of a stretch at once, or playing.

`forward` puts the clean blocks and the noisy ones side by side in one sequence; a noisy block
sees itself and the clean blocks that the streaming window would still hold. `Player` makes blocks
one after the other with the caches, as the engine does. The world is deterministic, so the
target is known either way: what the simulator showed under the same actions.
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
from glassworld.training.data.segments import BLOCK, Segment

FRESH_NOISE = 1.0
"""How much of the noise the sampler of these worlds draws anew after a step: all, as released."""
FAINTEST = 40
"""How many of the schedule's last steps are not learned: with hardly any noise in the picture
the error says little about the world and much about the noise."""


class WorldModel(nn.Module):
    """What is trained together: the transformer and its image tower.

    `locate` is asked in training alone: from the middle of the transformer it tells where in
    the maze each frame was seen from. Who can say that knows what lies around the corner.
    """

    def __init__(self, dit: DiTSpec, vision: VisionSpec) -> None:
        super().__init__()
        self.dit, self.vision = DiT(dit), VisionTower(vision)
        self.locate = nn.Sequential(
            nn.LayerNorm(dit.dim), nn.Linear(dit.dim, dit.dim), nn.SiLU(), nn.Linear(dit.dim, 4)
        )
        nn.init.zeros_(self.dit.head.head.weight)
        # A mouse unit is 0.1 a frame: without this its columns whisper beside the tokens.
        for name, weight in self.dit.named_parameters():
            if name.endswith("mouse_mlp.0.weight"):
                weight.data[:, dit.dim :] *= 10

    @property
    def device(self) -> torch.device:
        return self.dit.head.head.weight.device

    @property
    def history(self) -> int:
        """Blocks before its own that a block sees."""
        return self.dit.spec.window // BLOCK - 1

    def context(self, pictures: Tensor) -> list[KeyValues]:
        return self.dit.context_kv(self.vision(pictures))


class Prediction(NamedTuple):
    """What the model says of noisy frames: their flow [B, C, F, h, w], their place [B, F, 4]."""

    flow: Tensor
    whereabouts: Tensor


class Noisy(NamedTuple):
    """What the model is to clean: x [B, C, F, h, w], timestep and noise level [B, F]."""

    x: Tensor
    timesteps: Tensor
    sigmas: Tensor

    def x0(self, flow: Tensor) -> Tensor:
        """The clean latents that the flow leads to: x - sigma flow."""
        return self.x - self.sigmas[:, None, :, None, None] * flow

    def loss(self, flow: Tensor, truth: Tensor) -> Tensor:
        """The flow's squared error against the one that leads to the truth.

        That is the clean latents' error over sigma squared.
        """
        error = (self.x0(flow) - truth) / self.sigmas[:, None, :, None, None]
        return error.square().mean()


def visibility(clean: int, first: int, noisy: int, history: int) -> Tensor:
    """Which frame sees which, clean blocks 0.. first, then the noisy blocks from `first` on."""
    block = torch.cat([torch.arange(clean), torch.arange(first, first + noisy)])
    block = block.repeat_interleave(BLOCK)
    is_noisy = torch.arange(len(block)) >= clean * BLOCK
    query, key = block[:, None], block[None, :]
    recent = key >= query - history
    before = torch.where(is_noisy[:, None], key < query, key <= query)
    return torch.where(is_noisy[None, :], is_noisy[:, None] & (key == query), before & recent)


def forward(
    model: WorldModel, stretch: Segment, history: Tensor, first: int, noisy: Noisy
) -> Prediction:
    """What the model makes of the stretch's noisy blocks, from block `first` on.

    `history`: clean latents [B, C, F', h, w] of the stretch's first blocks; all but the last.
    """
    clean = history.shape[2] // BLOCK
    count = noisy.x.shape[2] // BLOCK
    frames = torch.arange(stretch.latents.shape[2], device=history.device)
    index = torch.cat([frames[: clean * BLOCK], frames[first * BLOCK :]])
    mouse = stretch.windows.mouse
    assert mouse is not None
    grid = (history.shape[-2] // 2, history.shape[-1] // 2)
    visible = visibility(clean, first, count, model.history)
    x = torch.cat([history, noisy.x], 2)
    tokens: list[Tensor] = []
    middle = model.dit.blocks[(len(model.dit.blocks) - 1) // 2]
    with middle.register_forward_hook(lambda layer, given, result: tokens.append(result)):
        flow = model.dit(
            torch.cat([x, stretch.condition[:, :, index]], 1),
            torch.cat([noisy.timesteps.new_zeros(len(x), clean * BLOCK), noisy.timesteps], 1),
            model.dit.training_position(stretch.start + index, grid, visible),
            ActionWindows(stretch.windows.keyboard[:, index], mouse[:, index]),
            model.context(stretch.pictures),
        )
    assert flow is not None
    places = model.locate(tokens[0][:, clean * BLOCK :].mean(2))
    return Prediction(flow[:, :, clean * BLOCK :], places)


def training_noise(truth: Tensor, schedule: FlowSchedule, random: torch.Generator) -> Noisy:
    """Noise each block to a level of its own, any of the schedule's but the faintest.

    The sampler's few levels alone would do for its few steps; learning all of them leaves the
    choice of steps, and of how many, to the sampler.
    """
    batch, blocks = truth.shape[0], truth.shape[2] // BLOCK
    table = torch.from_numpy(schedule.sigmas[: TRAINING_STEPS - FAINTEST]).float()
    levels = table[torch.randint(len(table), (batch, blocks), generator=random)]
    sigmas = levels.repeat_interleave(BLOCK, 1).to(truth.device)
    level = sigmas[:, None, :, None, None]
    noise = draw_noise(truth, random)
    return Noisy((1 - level) * truth + level * noise, 1000 * sigmas, sigmas)


def draw_noise(like: Tensor, random: torch.Generator) -> Tensor:
    """Normal noise of the shape of `like`, drawn where it lies: a GPU waits long for a host's."""
    device, own = like.device, random
    if device.type == "cuda":
        seed = int(torch.randint(2**62, (), generator=random))
        own = torch.Generator(device).manual_seed(seed)
    return torch.randn(like.shape, generator=own, device=device)


class Player:
    """The model playing on its own, block by block, as the engine runs it."""

    def __init__(
        self, model: WorldModel, stretch: Segment, steps: tuple[DenoisingStep, ...]
    ) -> None:
        self.model, self.stretch, self.steps = model, stretch, steps
        rows, columns = stretch.latents.shape[-2] // 2, stretch.latents.shape[-1] // 2
        self.grid = (rows, columns)
        self.caches: list[LayerCache] = model.dit.empty_caches(len(stretch.latents), rows * columns)
        with torch.no_grad():
            self.context = model.context(stretch.pictures)
        self.made: list[Tensor] = []
        self.inputs: list[list[Tensor]] = []

    @property
    def left(self) -> int:
        """Blocks of the stretch that are still to be played."""
        return self.stretch.latents.shape[2] // BLOCK - len(self.made)

    @torch.no_grad()
    def given(self, blocks: int) -> None:
        """Take the truth for the first blocks."""
        for index in range(blocks):
            part = self.stretch.blocks(index, index + 1)
            self._pass(part.latents, part, 0.0, output=False)
            self.made.append(part.latents)

    @torch.no_grad()
    def play(self, blocks: int, random: torch.Generator) -> None:
        """Make the next blocks; `inputs` keeps what each denoising step of each began with."""
        for _ in range(blocks):
            part = self.stretch.blocks(len(self.made), len(self.made) + 1)
            x = draw_noise(part.latents, random)
            inputs = []
            for index, step in enumerate(self.steps):
                inputs.append(x)
                flow = self._pass(x, part, step.timestep, output=True)
                assert flow is not None
                x0 = flow_to_x0(x, flow, step)
                if index + 1 < len(self.steps):
                    fresh = draw_noise(x, random)
                    noise = renew_noise(x, x0, step, fresh, FRESH_NOISE)
                    x = add_noise(x0, noise, self.steps[index + 1])
            self._pass(x0, part, 0.0, output=False)
            self.made.append(x0)
            self.inputs.append(inputs)

    def _pass(self, x: Tensor, part: Segment, timestep: float, output: bool) -> Tensor | None:
        return self.model.dit(
            torch.cat([x, part.condition], 1),
            torch.full((len(x), 1), timestep, device=x.device),
            # Counted from the stretch's first frame, before which the caches hold nothing.
            self.model.dit.stream_position(part.start - self.stretch.start, BLOCK, self.grid),
            part.windows,
            self.context,
            self.caches,
            output=output,
        )
