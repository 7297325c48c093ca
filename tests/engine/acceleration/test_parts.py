"""What makes a world faster leaves its frames as they were."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch

import glassworld
from glassworld.engine.acceleration.parts import accelerate, hint
from glassworld.errors import InputError
from glassworld.models.ops.quantized import QuantizedLinear
from glassworld.models.transformer.layer import Layer
from tests.support import tiny
from tests.support.same_frames import WALK, assert_same_frames

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="no C++ compiler, which compiling for a CPU needs"
)


def test_accelerate_leaves_kernels_and_graphs_out_on_a_cpu() -> None:
    world = accelerate(tiny.world(), ["kernels", "graphs"])
    assert {type(layer) for layer in world.networks.dit.blocks} == {Layer}
    session = world.start(tiny.picture())
    session.step(WALK)
    assert session.state.graphs is None


@pytest.mark.slow
@needs_compiler
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the compiler's own
def test_compiled_layers_share_their_code_and_keep_their_tags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._dynamo.utils import counters  # seconds to import: only where it is needed

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    plain = tiny.world()
    counters.clear()
    try:
        world = accelerate(plain, ["layers"])
        with pytest.raises(InputError, match="compiled already"):
            accelerate(world, ["int8"])
        made, expected = world.start(tiny.picture()), plain.start(tiny.picture())
        assert_same_frames(made, expected, 3)
        assert counters["stats"]["unique_graphs"] == 8
        with glassworld.profile(tmp_path / "t.json", mode="tags"):
            assert_same_frames(made, expected, 1)
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
def test_quantized_latents_are_near(part: str, most: float) -> None:
    plain = tiny.world()
    world = accelerate(plain, [part])
    kinds = Counter(type(layer).__name__ for layer in world.networks.dit.blocks.modules())
    assert kinds["QuantizedLinear"] == 3 * 4
    assert not any(isinstance(layer, QuantizedLinear) for layer in plain.networks.dit.modules())
    made, expected = (each.generate(tiny.picture(), 6, seed=1).latents for each in (world, plain))
    assert 0 < (made - expected).square().mean().sqrt() / expected.std() < most


def test_hint_advises_gpu_users_without_parts() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda:1")
    assert "--accelerate kernels,graphs" in hint(gpu, (), None)
    assert (hint(gpu, ("graphs",), "bfloat16"), hint(cpu, (), None)) == ("", "")


@pytest.mark.parametrize("dtype", ["mixed", "bfloat16"])
def test_hint_warns_of_bfloat16_where_the_processor_lacks_it(
    dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for native, warned in ((True, False), (False, True)):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda native=native: native)
        assert (f"--dtype {dtype} is slow" in hint(torch.device("cpu"), (), dtype)) is warned


def test_accelerate_names_an_unknown_part() -> None:
    with pytest.raises(InputError, match="'speed': must be one of attention, conv"):
        accelerate(tiny.world(), ["speed"])
    with pytest.raises(InputError, match=r"'int8': give a list of parts"):
        accelerate(tiny.world(), "int8")
    with pytest.raises(InputError, match="choose one of int8 and float8"):
        accelerate(tiny.world(), ["float8", "int8"])
    with pytest.raises(InputError, match="choose one of kernels and layers"):
        accelerate(tiny.world(), ["layers", "kernels"])
