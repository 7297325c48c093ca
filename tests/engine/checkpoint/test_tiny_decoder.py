"""A world with the tiny decoder: loaded strictly, walked like any other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from glassworld.cli import inference
from glassworld.engine.actions.track import Action
from glassworld.engine.batch import SessionBatch
from glassworld.engine.checkpoint.options import LoadOptions
from glassworld.engine.checkpoint.tiny_decoder import with_tiny_decoder
from glassworld.engine.world import World
from glassworld.errors import CheckpointError, InputError
from glassworld.models.ops.quantized import QuantizedLinear
from glassworld.models.vae.tiny_decoder import TinyDecoder
from glassworld.play.server_state import open_world
from tests.support import tiny

WALK = Action((1, 0, 0, 0), (0, 0.1))


@pytest.fixture(scope="module")
def world() -> World:
    return with_tiny_decoder(tiny.world(), None)


@pytest.fixture(scope="module")
def weights(world: World) -> dict[str, Tensor]:
    own = world.networks.decoder.state_dict()
    own = {name: weight.contiguous() for name, weight in own.items()}
    return {**own, "encoder.0.weight": torch.zeros(1)}  # in the released file, too


def test_frames_are_as_many_as_the_own_decoder_makes(world: World) -> None:
    rollout = world.generate(tiny.picture(), 6, seed=1)
    assert rollout.frames.shape == (21, 32, 48, 3)
    assert rollout.frames.std() > 5
    own = tiny.world().generate(tiny.picture(), 6, seed=1)
    assert torch.equal(rollout.latents, own.latents)


def test_sessions_can_be_rewound_and_walk_together(world: World) -> None:
    sessions = [world.start(tiny.picture(), seed=seed) for seed in range(2)]
    alone = world.start(tiny.picture(), seed=1)
    batch = SessionBatch(sessions)
    for _ in range(3):
        frames = batch.step([WALK, WALK])[1]
        assert np.abs(frames.astype(int) - alone.step(WALK)).max() <= 1
    saved = alone.save()
    first = alone.step(WALK)
    alone.restore(saved)
    assert np.array_equal(alone.step(WALK), first)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_released_file_is_read(
    world: World, weights: dict[str, Tensor], tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"taew2_1{suffix}"
    if suffix == ".pth":
        torch.save(weights, path)
    else:
        save_file(weights, path)
    made = with_tiny_decoder(tiny.world(), path).generate(tiny.picture(), 3).frames
    assert np.array_equal(made, world.generate(tiny.picture(), 3).frames)


def test_a_file_that_does_not_fit_is_refused(weights: dict[str, Tensor], tmp_path: Path) -> None:
    cut = {name: weight for name, weight in weights.items() if name != "decoder.22.bias"}
    torch.save({**cut, "decoder.9.conv.0.weight": torch.zeros(2)}, tmp_path / "cut.pth")
    with pytest.raises(CheckpointError, match=r"missing: decoder.22.bias; 1 tensors of the wrong"):
        with_tiny_decoder(tiny.world(), tmp_path / "cut.pth")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"hello world, these are no weights\n", "is a text that begins 'hello world"),
        ({"decoder.22.bias": 3}, "not a plain dictionary of named tensors"),
        ({"decoder.22.bias": torch.tensor(1.0)}, r"decoder.22.bias \[\] instead of \[3\]"),
    ],
)
def test_a_file_of_something_else_is_refused(
    weights: dict[str, Tensor], tmp_path: Path, content: Any, said: str
) -> None:
    path = tmp_path / "tiny.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save({**weights, **content}, path)
    with pytest.raises(CheckpointError, match=said) as caught:
        with_tiny_decoder(tiny.world(), path)
    assert str(caught.value).startswith(str(path))


def test_other_latents_are_refused() -> None:
    vae = replace(tiny.SPEC.vae, mean=(0.0,) * 16)
    with pytest.raises(InputError, match=r"Wan 2\.1"):
        with_tiny_decoder(tiny.world(vae=vae), None)


@pytest.mark.slow
def test_the_command_line_takes_it_beside_products_in_8_bits(
    weights: dict[str, Tensor], tmp_path: Path
) -> None:
    save_file(weights, tmp_path / "tiny.safetensors")
    flags = ["--num_output_frames", "3", "--output_folder", str(tmp_path / "out")]
    ways = {
        "plain": [],
        "quick": ["--accelerate", "int8", "--tiny_decoder", str(tmp_path / "tiny.safetensors")],
    }
    made = {}
    for name, way in ways.items():
        latents = tmp_path / f"{name}.safetensors"
        assert inference([*flags, *way, "--save_latents", str(latents)]) == 0
        made[name] = load_file(latents)["latents"]
    error = (made["quick"] - made["plain"]).square().mean().sqrt() / made["plain"].std()
    assert 0 < error < 0.05


def test_play_opens_its_world_so(weights: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(weights, tmp_path / "tiny.safetensors")
    options = LoadOptions(
        dtype="mixed", accelerate=("int8",), tiny_decoder=tmp_path / "tiny.safetensors"
    )
    world = open_world(options).world
    assert isinstance(world.networks.decoder, TinyDecoder)
    assert any(isinstance(part, QuantizedLinear) for part in world.networks.dit.modules())
    assert world.networks.decoder_dtype == torch.bfloat16
