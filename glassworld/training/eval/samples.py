"""Samples of what a model in training can do, and a page that shows them beside the curves."""

import base64
import html
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from glassworld.engine.media.images import shrink_frames
from glassworld.engine.sampling import DenoisingStep
from glassworld.files import replacing, write_file
from glassworld.models.vae.decoder import VAEDecoder
from glassworld.training.data.collect import SHOWN_PIXELS
from glassworld.training.data.latents import LatentEpisodes
from glassworld.training.data.segments import draw_segment
from glassworld.training.eval.metrics import frame_psnr, split_seconds
from glassworld.training.objectives.world_model import ModelRollout, WorldModel
from glassworld.training.sources.source import Frame
from glassworld.training.trainer import generator

COLUMNS = 12
SEED = 7
PAGE = "samples.html"
SCALE = 3
"""How much larger the page shows frames."""
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem }
img { image-rendering: pixelated; max-width: 100% }
table { border-collapse: collapse; display: block; overflow-x: auto }
td, th { padding: .2rem .8rem; text-align: right }
"""
_HEAD = (
    '<!doctype html><html lang="en"><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    f"<title>Samples</title><style>{_STYLE}</style>"
)


class SampleWriter:
    """Generates the same segments at each call and shows them in `samples.html`.

    Large frames are scaled down in its images, not in its PSNR.

    Parameters
    ----------
    decoder
        Decoder of the latents.
    episodes
        To take the segments from.
    root
        Folder of the run, which takes the page.
    count
        Number of segments.
    frames
        Length of a segment in latent frames.
    frame_rate
        Content frames per second.
    """

    def __init__(
        self,
        decoder: VAEDecoder,
        episodes: LatentEpisodes,
        root: Path,
        count: int = 4,
        frames: int = 18,
        frame_rate: int = 12,
    ) -> None:
        self.decoder, self.root, self.frame_rate = decoder, root, frame_rate
        self.blocks = frames // episodes.frames_per_block
        self.segment = draw_segment(episodes, count, 0, self.blocks, generator(SEED, 0))

    @torch.no_grad()
    def __call__(self, model: WorldModel, steps: tuple[DenoisingStep, ...], folder: Path) -> None:
        """Generate the segments with the model, write `samples.png` into `folder` and the page."""
        rollout = ModelRollout(model, self.segment.to(model.device), steps)
        rollout.generate(self.blocks, generator(SEED, 1))
        samples = torch.cat(rollout.blocks, 2).to(self.segment.latents.device)
        pairs = list(zip(self._truths, map(self._decode, samples), strict=True))
        shown = [(shrink_frames(a, SHOWN_PIXELS), shrink_frames(b, SHOWN_PIXELS)) for a, b in pairs]
        with replacing(folder / "samples.png") as path:
            comparison_strip(shown).save(path, "PNG")
        write_animation(self.root / "samples.webp", shown, self.frame_rate)
        write_samples_page(self.root, pairs)

    @cached_property
    def _truths(self) -> list[Frame]:
        """The decoded truth, decoded once: a GPU would wait for the CPU that decodes it."""
        return [self._decode(truth) for truth in self.segment.latents]

    def _decode(self, latents: Tensor) -> Frame:
        """Decode latents [C, F, h, w] to frames [N, H, W, 3]."""
        pixels = self.decoder(latents[None]).permute(0, 2, 3, 4, 1)
        frames: Frame = self.decoder.to_bytes(pixels)[0].numpy()
        return frames


def comparison_strip(pairs: list[tuple[Frame, Frame]], columns: int = COLUMNS) -> Image.Image:
    """Draw a row of truth and a row of the model for each pair, evenly spaced frames."""
    rows = []
    for pair in pairs:
        for frames in pair:
            indices = np.linspace(0, len(frames) - 1, columns).astype(int)
            rows.append(np.concatenate(list(frames[indices]), axis=1))
    return Image.fromarray(np.concatenate(rows))


def write_animation(path: Path, pairs: list[tuple[Frame, Frame]], frame_rate: int) -> None:
    """Write an animated image: truth above, model below, the pairs side by side."""
    rows = [np.concatenate(frames, axis=2) for frames in zip(*pairs, strict=True)]
    images = [Image.fromarray(frame) for frame in np.concatenate(rows, axis=1)]
    with replacing(path) as draft:
        images[0].save(
            draft,
            "WEBP",
            save_all=True,
            append_images=images[1:],
            duration=round(1000 / frame_rate),
            loop=0,
            lossless=True,
        )


def write_samples_page(root: Path, pairs: list[tuple[Frame, Frame]]) -> None:
    """Write `samples.html`: truth and model side by side, PSNR by second, curves, the data.

    Parameters
    ----------
    root
        Folder of the run. Images that it does not have yet are left out.
    pairs
        Frames of the truth and of the model, both decoded from latents.
    """
    seconds = [
        np.mean([frame_psnr(*parts) for parts in second])
        for second in zip(
            *(list(zip(*map(split_seconds, pair), strict=True)) for pair in pairs), strict=True
        )
    ]
    header = "".join(f"<th>{index + 1}</th>" for index in range(len(seconds)))
    cells = "".join(f"<td>{value:.1f}</td>" for value in seconds)
    parts = [
        f"<h1>{html.escape(root.resolve().name)}</h1>",
        "<p>Truth above, model below. Both come from the VAE's decoder.</p>",
        _figure(root / "samples.webp", "The model continues start images under recorded actions"),
        f"<table><tr><th>second</th>{header}</tr><tr><th>PSNR, dB</th>{cells}</tr></table>",
        _figure(root / "transformer" / "samples.png", "The same by time, truth above, model below"),
        _figure(root / "transformer" / "curve.png", "Losses of the transformer"),
        _figure(root / "transformer" / "critic" / "curve.png", "Loss of the discriminator"),
        _figure(root / "vae" / "curve.png", "PSNR and KL of the VAE"),
        _figure(root / "vae" / "decoder" / "curve.png", "PSNR of the decoder alone"),
        _figure(root / "contact-sheet.png", "Collected episodes, one per row"),
    ]
    write_file(root / PAGE, (_HEAD + "\n".join(parts) + "\n").encode())


def _figure(path: Path, caption: str) -> str:
    """Embed an image in the page, frames enlarged; nothing if there is no image."""
    if not path.exists():
        return ""
    with Image.open(path) as image:
        width = image.width if path.stem == "curve" else image.width * SCALE
    data = base64.b64encode(path.read_bytes()).decode()
    kind = path.suffix.removeprefix(".")
    source = f"data:image/{kind};base64,{data}"
    text = html.escape(caption)
    return f'<h2>{text}</h2><img width="{width}" src="{source}" alt="{text}">'
