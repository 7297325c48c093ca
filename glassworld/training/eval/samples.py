"""Images of what a model in training can do: truth above, model below, from the same start."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from glassworld.engine.sampling import DenoisingStep
from glassworld.files import replacing
from glassworld.models.vae.decoder import VAEDecoder
from glassworld.training.data.latents import LatentEpisodes
from glassworld.training.data.segments import draw_segment
from glassworld.training.objectives.world_model import ModelRollout, WorldModel
from glassworld.training.trainer import generator

COLUMNS = 12
SEED = 7


class SampleWriter:
    """Generates the same segments at each call and writes `samples.png`.

    Parameters
    ----------
    decoder
        Decoder of the latents.
    episodes
        To take the segments from.
    count
        Number of segments.
    frames
        Length of a segment in latent frames.
    """

    def __init__(
        self, decoder: VAEDecoder, episodes: LatentEpisodes, count: int = 4, frames: int = 18
    ) -> None:
        self.decoder, self.blocks = decoder, frames // episodes.frames_per_block
        self.segment = draw_segment(episodes, count, 0, self.blocks, generator(SEED, 0))

    @torch.no_grad()
    def __call__(self, model: WorldModel, steps: tuple[DenoisingStep, ...], folder: Path) -> None:
        """Generate the segments with the model and write the image into `folder`."""
        rollout = ModelRollout(model, self.segment.to(model.device), steps)
        rollout.generate(self.blocks, generator(SEED, 1))
        rows = []
        for truth, sample in zip(self.segment.latents, torch.cat(rollout.blocks, 2), strict=True):
            rows += [self._row(truth), self._row(sample.to(truth.device))]
        with replacing(folder / "samples.png") as path:
            Image.fromarray(np.concatenate(rows)).save(path, "PNG")

    def _row(self, latents: Tensor) -> NDArray[np.uint8]:
        """Decode latents [C, F, h, w] and join evenly spaced frames."""
        pixels = self.decoder(latents[None]).permute(0, 2, 3, 4, 1)
        frames = self.decoder.to_bytes(pixels)[0].numpy()
        indices = np.linspace(0, len(frames) - 1, COLUMNS).astype(int)
        return np.concatenate(list(frames[indices]), axis=1)
