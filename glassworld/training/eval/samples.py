"""Pictures of what a model in training can do: truth above, model below, from the same start."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from glassworld.engine.sampling import DenoisingStep
from glassworld.files import replacing
from glassworld.models.vae.decoder import VAEDecoder
from glassworld.training.data.latents import LatentPlay
from glassworld.training.data.segments import draw
from glassworld.training.objectives.world_model import Player, WorldModel
from glassworld.training.trainer import generator

COLUMNS = 12


class Show:
    """Plays the same stretches each time it is called and writes `samples.png`.

    Args:
        decoder: of the latents that are learned.
        play: what the stretches are taken from.
        count: how many stretches.
        blocks: how long they are.
    """

    def __init__(
        self, decoder: VAEDecoder, play: LatentPlay, count: int = 4, blocks: int = 6
    ) -> None:
        self.decoder, self.blocks = decoder, blocks
        self.stretch = draw(play, count, 0, blocks, generator(7, 0))

    @torch.no_grad()
    def __call__(self, model: WorldModel, steps: tuple[DenoisingStep, ...], folder: Path) -> None:
        """Play with the model and write the picture into `folder`."""
        player = Player(model, self.stretch.to(model.device), steps)
        player.play(self.blocks, generator(7, 1))
        rows = []
        for truth, made in zip(self.stretch.latents, torch.cat(player.made, 2), strict=True):
            rows += [self._row(truth), self._row(made.to(truth.device))]
        with replacing(folder / "samples.png") as path:
            Image.fromarray(np.concatenate(rows)).save(path, "PNG")

    def _row(self, latents: Tensor) -> NDArray[np.uint8]:
        frames = self.decoder.to_bytes(self.decoder(latents[None]).permute(0, 2, 3, 4, 1))[
            0
        ].numpy()
        moments = np.linspace(0, len(frames) - 1, COLUMNS).astype(int)
        return np.concatenate(list(frames[moments]), axis=1)
