"""Exported worlds load and play."""

from pathlib import Path

import torch
from PIL import Image

from glassworld.engine.actions.track import Action
from glassworld.engine.checkpoint.load import load_world
from glassworld.training.export import export_world
from tests.support.small import SMALL, small_model, small_vae


def test_exported_world_loads_plays_and_keeps_its_latents(tmp_path: Path) -> None:
    vae = small_vae()
    export_world(vae, small_model(), SMALL, tmp_path)
    world = load_world(tmp_path)
    pixels = torch.rand(1, 3, 5, 64, 96) * 2 - 1
    with torch.no_grad():
        difference = (world.networks.encoder(pixels) - vae.encoder(pixels)).abs().max()
    assert difference < 0.05  # half precision
    session = world.start(Image.new("RGB", (96, 64), "brown"))
    action = Action((1.0, 0.0, 0.0, 0.0), (0.0, 0.1))
    assert [session.step(action).shape for _ in range(2)] == [(9, 64, 96, 3), (12, 64, 96, 3)]


def test_exported_world_may_be_read_by_whom_its_settings_may(tmp_path: Path) -> None:
    export_world(small_vae(), small_model(), SMALL, tmp_path)
    modes = {path.stat().st_mode for path in tmp_path.glob("*.*")}
    assert len(modes) == 1  # safetensors lets its user alone read what it writes
