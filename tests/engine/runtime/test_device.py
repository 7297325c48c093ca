"""Precision: what suits a device by default, what was asked for otherwise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from glassworld.engine.checkpoint.load import load_world
from glassworld.engine.runtime.device import Precision
from glassworld.engine.world import World
from glassworld.errors import InputError
from tests.support import tiny
from tests.support.release import write_release

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16


@pytest.mark.parametrize(
    ("device", "name", "expected"),
    [
        (CPU, None, Precision(F32, F32, F32)),
        (CPU, "mixed", Precision(F32, F32, BF16)),
        (CPU, "float32", Precision(F32, F32, F32)),
        (CPU, "bfloat16", Precision(BF16, BF16, BF16)),
        (CUDA, None, Precision(BF16, F16, F16)),
        (CUDA, "bfloat16", Precision(BF16, F16, F16)),
        (CUDA, "float32", Precision(F32, F32, F32)),
    ],
)
def test_precision_suits_the_device_or_the_name(
    device: torch.device, name: str | None, expected: Precision
) -> None:
    assert Precision.of(device, name) == expected


def test_precision_names_an_unknown_dtype() -> None:
    with pytest.raises(InputError, match="'float64': must be one of float32, mixed, bfloat16"):
        Precision.of(CPU, "float64")


def test_mixed_decodes_almost_the_exact_frames(tmp_path: Path) -> None:
    flags = write_release(tmp_path)

    def load(dtype: str | None) -> World:
        return load_world(config_path=flags[1], pretrained_model_path=flags[3], dtype=dtype)

    mixed, exact = (load(dtype).generate(tiny.picture(), 6) for dtype in ("mixed", None))
    assert torch.equal(mixed.latents, exact.latents)
    error = mixed.frames.astype(float) - exact.frames
    assert np.sqrt(np.square(error).mean()) < 2  # this world's pictures are noise of all levels
