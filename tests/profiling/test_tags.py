"""The tags: a run emits the registry, nested as the registry says, and nothing else of ours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import glassworld
from glassworld.profiling import registry
from glassworld.profiling.tags import listen, tag
from tests.support import tiny
from tests.support.annotations import fold, read_annotations

RUN_ONLY = {registry.VIDEO_POSTPROCESSING, registry.VIDEO_EXPORT}  # of the command, not the world


@pytest.fixture(scope="module", params=["full", "tags"])
def trace(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trace") / "trace.json"
    world = tiny.world()
    initial = torch.zeros(1, 16, 3, 4, 6)
    with glassworld.profile(path, mode=request.param):
        world.generate(tiny.picture(), 6, initial_latents=initial)
    return path


def test_run_emits_the_registry(trace: Path) -> None:
    emitted = {pattern for _, _, pattern in read_annotations(trace)}
    assert emitted == registry.REGISTRY.keys() - RUN_ONLY


def test_tags_nest_as_registered(trace: Path) -> None:
    for name, parent, pattern in read_annotations(trace):
        allowed = registry.REGISTRY[pattern].parents
        assert parent in allowed if allowed else parent is None, (name, parent)


def test_run_names_its_steps_and_frames(trace: Path) -> None:
    names = [name for name, _, _ in read_annotations(trace)]
    assert "2.3.0_Denoising_Step_0_t1000" in names
    assert "2.3.1_Denoising_Step_2_t713" in names
    assert "2.3.1_Update_KV_Cache" in names
    assert names.count("DiffusionModel_Forward") == 1 + 2 * 4
    assert names.count("Flow_to_X0_Conversion") == 2 * 3
    assert names.count("VAE_Decode_Frame_2") == 2
    assert [n for n in names if registry.REGISTRY[fold(n) or ""].level == 1] == [
        "1_Data_Preparation",
        "2_Pipeline_Inference",
    ]


def seed_in(trace: Path) -> int | None:
    seed: int | None = json.loads(trace.read_text())["glassworld"]["config"].get("seed")
    return seed


def test_own_tags_and_record_function_are_recorded(tmp_path: Path) -> None:
    with (
        glassworld.profile(tmp_path / "t.json"),
        glassworld.tag("2.3.1_My_Step_t{t}", t=999),
        torch.profiler.record_function("Plain_One"),
    ):
        pass
    text = (tmp_path / "t.json").read_text()
    assert "2.3.1_My_Step_t999" in text
    assert "Plain_One" in text


def test_listen_reports_every_tag_until_stopped() -> None:
    closed: list[str] = []
    stop = listen(lambda pattern, fields, start, end: closed.append(pattern.format(**fields)))
    with tag("Outer_{n}", n=1), tag("Inner"):
        pass
    stop()
    with tag("Late"):
        pass
    assert closed == ["Inner", "Outer_1"]


def test_tag_without_listeners_is_one_shared_object() -> None:
    assert tag("A") is tag("B_{n}", n=2)


def test_tag_in_a_compiled_region_does_nothing() -> None:
    def double(x: torch.Tensor) -> torch.Tensor:
        with tag("Inside"):
            return x * 2

    compiled = torch.compile(double, backend="eager", fullgraph=True)
    assert torch.equal(compiled(torch.ones(2)), torch.full((2,), 2.0))
