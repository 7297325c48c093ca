"""What makes a world faster leaves its frames as they were."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

import glassworld
from glassworld.engine.acceleration.autotune import (
    choose_attention,
    choose_convolutions,
    convolution_inputs,
)
from glassworld.engine.acceleration.parts import accelerate, hint
from glassworld.engine.actions.track import Action
from glassworld.engine.batch import SessionBatch
from glassworld.engine.world import Session, World
from glassworld.errors import InputError
from glassworld.models.ops.attention import attention, pointwise_attention
from glassworld.models.transformer.layer import Layer
from tests.support import tiny

WALK = Action((1, 0, 0, 0), (0, 0.1))

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="no C++ compiler, which compiling for a CPU needs"
)


def assert_same_walk(made: Session, expected: Session, blocks: int) -> None:
    for _ in range(blocks):
        difference = made.step(WALK).astype(int) - expected.step(WALK)
        assert np.abs(difference).max() <= 1


def capturing() -> World:
    """A world whose passes are made again from fixed inputs, as graphs do on another device."""
    world = tiny.world()
    world.pipeline.captures = True
    return world


def test_kernels_and_graphs_are_left_out_on_a_cpu() -> None:
    world = tiny.world()
    accelerate(world, ["kernels", "graphs"])
    assert {type(layer) for layer in world.networks.dit.blocks} == {Layer}
    session = world.start(tiny.picture())
    session.step(WALK)
    assert session.state.graphs is None


def test_convolutions_by_either_way_are_the_same() -> None:
    direct, folded = tiny.world(), tiny.world()
    layers = [layer for layer, _ in convolution_inputs(direct, direct.pipeline.decoder)]
    for layer in layers:
        layer.uses_conv3d = True
    assert layers
    assert_same_walk(direct.start(tiny.picture()), folded.start(tiny.picture()), blocks=3)


def test_each_convolution_is_done_the_faster_way() -> None:
    world = tiny.world()
    measured = choose_convolutions(world)
    assert measured
    for layer, x in convolution_inputs(world, world.pipeline.decoder):
        times = measured[x.shape[-1], layer.out_channels, x.shape[1] - 2, *x.shape[2:4]]
        assert layer.uses_conv3d == (times["conv3d"] < times["folded"])


def test_passes_from_fixed_inputs_are_the_same() -> None:
    walks = [each.start(tiny.picture(), seed=1) for each in (capturing(), tiny.world())]
    assert_same_walk(*walks, blocks=6)
    first, second = walks
    saved = first.save(), second.save()
    assert_same_walk(first, second, 2)
    first.restore(saved[0])  # in new storage: what was captured over the old one is not used
    second.restore(saved[1])
    assert_same_walk(first, second, 4)


def test_passes_of_a_batch_from_fixed_inputs_are_the_same() -> None:
    captured, plain = capturing(), tiny.world()
    sessions = [captured.start(tiny.picture(), seed=seed) for seed in range(2)]
    alone = [plain.start(tiny.picture(), seed=seed) for seed in range(2)]
    for session, other in zip(sessions, alone, strict=True):
        assert_same_walk(session, other, 4)
    batch = SessionBatch(sessions)
    for _ in range(4):
        for frames, other in zip(batch.step([WALK, WALK]), alone, strict=True):
            assert np.abs(frames.astype(int) - other.step(WALK)).max() <= 1


def test_attention_is_chosen_by_measuring() -> None:
    world, plain = tiny.world(), tiny.world()
    measured = choose_attention(world)
    assert measured["self"].keys() == {"FLASH_ATTENTION", "MATH"}
    assert measured["mouse"].keys() == {"products", "sums"}
    assert all(ms > 0 for times in measured.values() for ms in times.values())
    assert_same_walk(world.start(tiny.picture()), plain.start(tiny.picture()), 4)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_by_sums_is_attention(masked: bool) -> None:
    draw = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(5, 2, n, 8, generator=draw) for n in (3, 6, 6))
    mask = torch.tensor([[True] * 4 + [False] * 2]).expand(3, 6) if masked else None
    torch.testing.assert_close(pointwise_attention(q, k, v, mask), attention(q, k, v, mask))


@needs_compiler
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the compiler's own
def test_compiled_layers_share_their_code_and_keep_their_tags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    world, plain = tiny.world(), tiny.world()
    counters.clear()
    try:
        accelerate(world, ["layers"])
        made, expected = world.start(tiny.picture()), plain.start(tiny.picture())
        assert_same_walk(made, expected, 3)
        assert counters["stats"]["unique_graphs"] == 8
        with glassworld.profile(tmp_path / "t.json", mode="tags"):
            assert_same_walk(made, expected, 1)
    finally:
        torch.compiler.reset()
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    names = [event["name"] for event in events if event.get("cat") == "user_annotation"]
    for kind in ("Self", "Cross", "Mouse", "Keyboard"):
        assert f"DiT_{kind}_Attention" in names
    assert "DiT_Feed_Forward" in names
    (folder,) = (tmp_path / "glassworld" / "compiled").iterdir()
    assert any(folder.iterdir())


@pytest.mark.parametrize(("part", "most"), [("int8", 0.05), ("float8", 0.15)])
def test_eight_bits_are_near(part: str, most: float) -> None:
    world, plain = tiny.world(), tiny.world()
    accelerate(world, [part])
    kinds = Counter(type(layer).__name__ for layer in world.networks.dit.blocks.modules())
    assert kinds["QuantizedLinear"] == 3 * 4
    made, expected = (each.generate(tiny.picture(), 6, seed=1).latents for each in (world, plain))
    assert 0 < (made - expected).square().mean().sqrt() / expected.std() < most


def test_what_a_gpu_makes_faster_is_told_where_nothing_was_asked_for() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda:1")
    assert "--accelerate kernels,graphs" in hint(gpu, "")
    assert (hint(gpu, "graphs"), hint(cpu, "")) == ("", "")


def test_an_unknown_part_is_named() -> None:
    with pytest.raises(InputError, match="'speed': must be one of attention, conv"):
        accelerate(tiny.world(), ["speed"])
    with pytest.raises(InputError, match=r"'int8': give a list of parts"):
        accelerate(tiny.world(), "int8")
    with pytest.raises(InputError, match="choose one of int8 and float8"):
        accelerate(tiny.world(), ["float8", "int8"])
    with pytest.raises(InputError, match="choose one of kernels and layers"):
        accelerate(tiny.world(), ["layers", "kernels"])
