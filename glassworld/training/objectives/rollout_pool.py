"""Long play of the model's own: journeys that go on from step to step of the training.

A journey begins with a true view and true actions, and soon the model is on its own: where the
actions lead in its rooms nobody knows. Only its last blocks are kept, which is all that the window
sees.
"""

import torch
from torch import Tensor

from glassworld.engine.sampling import DenoisingStep
from glassworld.specs import TIME_FACTOR
from glassworld.training.data.latents import LatentPlay
from glassworld.training.data.segments import BLOCK, at_rest, draw, onward
from glassworld.training.objectives.discriminator import CLIP_BLOCKS, Clip
from glassworld.training.objectives.world_model import Noisy, Player, WorldModel, forward

RESTING = 0.25
"""How many journeys are spent without a key."""


class RolloutPool:
    """Some journeys of different ages; every few steps the oldest begins anew.

    Args:
        play: where they begin, and whose actions they follow.
        batch: how many.
        blocks: after how many blocks each ends.
    """

    def __init__(
        self, play: LatentPlay, model: WorldModel, batch: int, blocks: int, random: torch.Generator
    ) -> None:
        self.play, self.model = play, model
        self.every = max(1, blocks // (CLIP_BLOCKS * batch))
        self.keyboard = play.keyboard[:, 1:].flatten(0, 1)
        self.mouse = play.mouse[:, 1:].flatten(0, 1)
        channels, height, width = play.latents.shape[2:]
        like = play.keyboard
        self.seen = like.new_zeros(batch, channels, model.history * BLOCK, height, width)
        self.at = like.new_zeros(batch, dtype=torch.long)
        self.resting = like.new_zeros(batch, dtype=torch.bool)
        self.pictures = play.pictures.new_zeros(batch, *play.pictures.shape[1:])
        self.taken = 0
        for row in range(batch):
            self._begin(row, random)

    def _begin(self, row: int, random: torch.Generator) -> None:
        """A new journey: from inside some episode, or from a view that has settled."""

        def pick(end: int) -> int:
            return int(torch.randint(end, (), generator=random))

        frames = self.seen.shape[2]
        episode = pick(len(self.play.latents))
        frame = 1 + pick(self.play.latents.shape[1] - frames)
        self.pictures[row] = self.play.pictures[pick(len(self.play.pictures))]
        self.at[row] = episode * (self.play.latents.shape[1] - 1) + frame
        self.seen[row] = self.play.latents[episode, frame : frame + frames].float().transpose(0, 1)
        rest = None
        if float(torch.rand((), generator=random)) < RESTING:
            rest = at_rest(self.play, 1, frames // BLOCK, random)
        self.resting[row] = rest is not None
        if rest is not None:
            self.seen[row] = rest.latents[0]

    def _actions(self) -> tuple[Tensor, Tensor]:
        """The rows that the frames kept and the next ones see; see `samples.windows`."""
        frames = self.seen.shape[2] + CLIP_BLOCKS * BLOCK
        # Frame f sees the rows from 4f - 12 on, and an episode's row 0 is left out here.
        first = TIME_FACTOR * self.at[:, None] - 13
        rows = first + torch.arange(TIME_FACTOR * (frames + 2), device=first.device)
        rows = rows % len(self.keyboard)
        moving = (~self.resting)[:, None, None]
        return self.keyboard[rows] * moving, self.mouse[rows] * moving

    def advance(self, steps: tuple[DenoisingStep, ...], random: torch.Generator) -> Clip:
        """Play the next blocks; they carry a gradient, through one denoising step each.

        That is the last one of all blocks but the last, any one of the last.
        """
        if self.taken and self.taken % self.every == 0:
            self._begin((self.taken // self.every - 1) % len(self.seen), random)
        self.taken += 1
        stretch = onward(self.play, self.seen, *self._actions(), self.pictures, CLIP_BLOCKS)
        stretch = stretch.to(self.model.device)
        player = Player(self.model, stretch, steps)
        player.given(self.model.history)
        player.play(CLIP_BLOCKS, random)
        made = torch.cat(player.made, 2)
        self.seen = made[:, :, -self.seen.shape[2] :].to(self.seen.device)
        self.at += CLIP_BLOCKS * BLOCK

        noisy = _entered(player, steps, random)
        flow = forward(self.model, stretch, made[:, :, :-BLOCK], self.model.history, noisy).flow
        judged = stretch.blocks(self.model.history, self.model.history + CLIP_BLOCKS)
        return Clip(noisy.x0(flow), judged.windows)

    def true_clips(self, random: torch.Generator) -> Clip:
        """What the simulator showed: as many clips, at rest in the rows where the journeys rest."""
        start = 1 + int(torch.randint(self.play.blocks - CLIP_BLOCKS, (), generator=random))
        truth = draw(self.play, len(self.seen), start, CLIP_BLOCKS, random)
        mouse = truth.windows.mouse
        assert mouse is not None
        if self.resting.any():
            rest = at_rest(self.play, int(self.resting.sum()), CLIP_BLOCKS, random)
            assert rest is not None
            truth.latents[self.resting] = rest.latents
            truth.windows.keyboard[self.resting] = 0
            mouse[self.resting] = 0
        truth = truth.to(self.model.device)
        return Clip(truth.latents, truth.windows)


def _entered(player: Player, steps: tuple[DenoisingStep, ...], random: torch.Generator) -> Noisy:
    """What the played blocks were when their denoising steps began, each at one of them."""
    inputs = player.inputs[-CLIP_BLOCKS:]
    batch = len(inputs[0][0])
    index = torch.full((batch, CLIP_BLOCKS), len(steps) - 1)
    index[:, -1] = torch.randint(len(steps), (batch,), generator=random)
    x = torch.cat(
        [
            torch.stack([block[int(choice)][row] for row, choice in enumerate(column)])
            for block, column in zip(inputs, index.T, strict=True)
        ],
        2,
    )
    index = index.repeat_interleave(BLOCK, 1)
    timesteps = torch.tensor([step.timestep for step in steps])[index]
    sigmas = torch.tensor([step.sigma for step in steps])[index]
    return Noisy(x, timesteps.to(x.device), sigmas.to(x.device))
