"""The page of samples, as a browser shows it on a phone and on a desk."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from glassworld.training.eval.samples import SampleWriter, write_animation, write_samples_page
from tests.support.small import SMALL, latent_episodes, small_model, small_vae

IMAGES = {
    "transformer/samples.png": (12 * 96, 8 * 64),
    "transformer/curve.png": (700, 400),
    "transformer/critic/curve.png": (700, 400),
    "vae/curve.png": (700, 400),
    "vae/decoder/curve.png": (700, 400),
    "contact-sheet.png": (12 * 96, 12 * 64),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a training with all images that its page shows."""
    root = tmp_path_factory.mktemp("run")
    for name, size in IMAGES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, "gray").save(root / name)
    truth = np.random.default_rng(0).integers(0, 256, (69, 64, 96, 3), dtype=np.uint8)
    pairs = [(truth, truth)] * 4
    write_animation(root / "samples.webp", pairs, 12)
    write_samples_page(root, pairs)
    return root


@pytest.mark.parametrize("width", [360, 1280])
def test_samples_page_fits_a_screen_and_shows_every_image(
    width: int, run: Path, browser: Any
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, is_mobile=width < 1000)
    try:
        page = context.new_page()
        page.goto((run / "samples.html").as_uri())
        assert page.evaluate("[innerWidth, document.documentElement.scrollWidth]") == [width] * 2
        shown = page.evaluate("[...document.images].map(i => [i.alt, i.complete, i.naturalWidth])")
    finally:
        context.close()
    assert len(shown) == 1 + len(IMAGES)
    assert all(alt and complete and natural_width for alt, complete, natural_width in shown)


def test_sample_writer_scales_large_frames_down_in_its_images_alone(tmp_path: Path) -> None:
    episodes = latent_episodes()
    large = replace(
        episodes,
        latents=episodes.latents.repeat(1, 1, 1, 2, 2),
        condition=episodes.condition.repeat(1, 1, 1, 2, 2),
        condition_limit=episodes.condition_limit.repeat(1, 2, 2),
        start_images=episodes.start_images.repeat(1, 2, 2, 1),
    )
    write = SampleWriter(small_vae().decoder, large, tmp_path, count=2, frames=3)
    write(small_model(), SMALL.sampler, tmp_path)
    assert write._truths[0].shape[1:3] == (128, 192)
    with Image.open(tmp_path / "samples.webp") as image:
        assert image.size == (2 * 96, 2 * 64)
    with Image.open(tmp_path / "samples.png") as image:
        assert image.size == (12 * 96, 4 * 64)


def test_sample_writer_decodes_the_truth_once(tmp_path: Path) -> None:
    decoder, decoded = small_vae().decoder, []
    decoder.register_forward_hook(lambda _, inputs, __: decoded.append(inputs[0]))
    write = SampleWriter(decoder, latent_episodes(), tmp_path, count=2, frames=6)
    pages = []
    for calls in (4, 6):
        write(small_model(), SMALL.sampler, tmp_path)
        assert len(decoded) == calls
        pages.append((tmp_path / "samples.html").read_text())
    assert pages[0] == pages[1]
