"""Error of latents and frames against an exact world."""

from __future__ import annotations

import pytest
import torch

from glassworld.bench.accuracy import error_against, relative_errors
from glassworld.engine.checkpoint.tiny_decoder import with_tiny_decoder
from tests.support import tiny


def test_a_tiny_decoder_changes_frames_and_no_latents() -> None:
    world = tiny.world()
    error = error_against(with_tiny_decoder(world, None), world, tiny.picture())
    assert error["latents_in_spreads"] == 0
    assert 0 < error["psnr_db"] < 40


def test_a_world_has_no_error_against_itself() -> None:
    world = tiny.world()
    error = error_against(world, world, tiny.picture())
    assert error == {"latents_in_spreads": 0, "psnr_db": 100}


def test_relative_error_is_in_standard_deviations() -> None:
    exact = torch.tensor([1.0, -1, 1, -1])
    (error,) = relative_errors([exact + 0.5], [exact])
    assert error == pytest.approx(0.5 / exact.std().item())
