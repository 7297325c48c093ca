"""The tags: a run emits the registry, nested as the registry says, and nothing else of ours."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import glassworld
from glassworld.errors import InputError
from glassworld.profiling import registry
from glassworld.profiling.tags import listen, tag
from tests.support import tiny

RUN_ONLY = {registry.VIDEO_POSTPROCESSING, registry.VIDEO_EXPORT}  # of the command, not the world


def patterns() -> list[tuple[re.Pattern[str], str]]:
    return [
        (re.compile(re.sub(r"\\\{\w+\\\}", r"(\\d+)", re.escape(pattern))), pattern)
        for pattern in registry.REGISTRY
    ]


def fold(name: str) -> str | None:
    return next((pattern for form, pattern in patterns() if form.fullmatch(name)), None)


def annotations(path: Path) -> list[tuple[str, str | None, str]]:
    """Each annotation's name, its parent's pattern and its own, in order of time."""
    events = [
        event
        for event in json.loads(path.read_text())["traceEvents"]
        if event.get("cat") == "user_annotation" and event["ph"] == "X"
    ]
    events.sort(key=lambda event: (event["ts"], -event["dur"]))
    found, stack = [], []
    for event in events:
        while stack and event["ts"] >= stack[-1]["ts"] + stack[-1]["dur"]:
            stack.pop()
        pattern = fold(event["name"])
        if pattern is None:
            continue
        found.append((event["name"], fold(stack[-1]["name"]) if stack else None, pattern))
        stack.append(event)
    return found


@pytest.fixture(scope="module", params=["full", "tags"])
def trace(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trace") / "trace.json"
    world = tiny.world()
    initial = torch.zeros(1, 16, 3, 4, 6)
    with glassworld.profile(path, mode=request.param):
        world.generate(tiny.picture(), 6, initial_latents=initial)
    return path


def test_a_run_emits_the_registry(trace: Path) -> None:
    emitted = {pattern for _, _, pattern in annotations(trace)}
    assert emitted == registry.REGISTRY.keys() - RUN_ONLY


def test_tags_nest_as_registered(trace: Path) -> None:
    for name, parent, pattern in annotations(trace):
        allowed = registry.REGISTRY[pattern].parents
        assert parent in allowed if allowed else parent is None, (name, parent)


def test_the_names_of_a_run(trace: Path) -> None:
    names = [name for name, _, _ in annotations(trace)]
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


def test_the_trace_tells_the_run(trace: Path) -> None:
    facts = json.loads(trace.read_text())["glassworld"]
    assert facts["config"]["mode"] == "universal"
    assert facts["config"]["model"]["num_layers"] == 3
    assert facts["config"]["num_latent_frames"] == 6
    assert facts["versions"]["torch"] == torch.__version__
    assert facts["machine"]["cores"] > 0


def test_tags_only_records_no_operators(tmp_path: Path) -> None:
    with glassworld.profile(tmp_path / "t.json", mode="tags"), tag("Mine"):
        torch.ones(3).sum()
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    categories = {event.get("cat") for event in events}
    assert "user_annotation" in categories
    assert "cpu_op" not in categories


def test_only_the_wanted_blocks(tmp_path: Path) -> None:
    with glassworld.profile(tmp_path / "t.json", blocks=(1, 3)):
        tiny.world().generate(tiny.picture(), 12)
    blocks = {n for n, _, p in annotations(tmp_path / "t.json") if p == registry.BLOCK}
    assert blocks == {"2.3_Block_1", "2.3_Block_2"}


@pytest.mark.parametrize("first", [0, 1, 2, 5])
def test_a_run_that_ends_before_the_wanted_blocks_leaves_an_earlier_trace(
    tmp_path: Path, first: int
) -> None:
    path = tmp_path / "t.json"
    path.write_text("yesterday")
    with glassworld.profile(path, "tags", (first, 9)) as capture:
        tiny.world().generate(tiny.picture(), 6)
    assert capture.written == (first < 2)
    assert (path.read_text() == "yesterday") == (first >= 2)


def test_own_tags_and_record_function_are_seen(tmp_path: Path) -> None:
    with (
        glassworld.profile(tmp_path / "t.json"),
        glassworld.tag("2.3.1_My_Step_t{t}", t=999),
        torch.profiler.record_function("Plain_One"),
    ):
        pass
    text = (tmp_path / "t.json").read_text()
    assert "2.3.1_My_Step_t999" in text
    assert "Plain_One" in text


def test_a_capture_survives_an_exception_and_frees_the_way(tmp_path: Path) -> None:
    def broken() -> None:
        with glassworld.profile(tmp_path / "t.json"), tag("Before_The_Fall"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken()
    assert "Before_The_Fall" in (tmp_path / "t.json").read_text()
    with glassworld.profile(tmp_path / "again.json.gz"):
        pass
    assert (tmp_path / "again.json.gz").read_bytes()[:2] == b"\x1f\x8b"


def test_bad_input_leaves_an_earlier_trace(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text("yesterday")
    with pytest.raises(InputError, match="multiple"), glassworld.profile(tmp_path / "t.json"):
        tiny.world().generate(tiny.picture(), 4)
    assert (tmp_path / "t.json").read_text() == "yesterday"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"mode": "some"}, "mode"), ({"blocks": (3, 3)}, "A:B"), ({"blocks": (-1, 3)}, "A:B")],
)
def test_bad_captures(tmp_path: Path, arguments: dict[str, object], message: str) -> None:
    with (
        pytest.raises(InputError, match=message),
        glassworld.profile(tmp_path / "t.json", **arguments),
    ):
        pass
    with pytest.raises(InputError, match="not writable"), glassworld.profile("/no/where/t.json"):
        pass
    with (
        glassworld.profile(tmp_path / "a.json"),
        pytest.raises(InputError, match="another"),
        glassworld.profile(tmp_path / "b.json"),
    ):
        pass


def test_listeners_hear_every_tag_and_can_leave() -> None:
    heard: list[str] = []
    stop = listen(lambda pattern, fields, start, end: heard.append(pattern.format(**fields)))
    with tag("Outer_{n}", n=1), tag("Inner"):
        pass
    stop()
    with tag("Late"):
        pass
    assert heard == ["Inner", "Outer_1"]


def test_an_idle_tag_is_one_shared_object() -> None:
    assert tag("A") is tag("B_{n}", n=2)


def test_tags_step_aside_in_compiled_regions() -> None:
    def double(x: torch.Tensor) -> torch.Tensor:
        with tag("Inside"):
            return x * 2

    compiled = torch.compile(double, backend="eager", fullgraph=True)
    assert torch.equal(compiled(torch.ones(2)), torch.full((2,), 2.0))


def test_a_folder_is_no_trace(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder"), glassworld.profile(tmp_path):
        pass
    with glassworld.profile(tmp_path / "trace.json"):
        pass
    assert [each.name for each in tmp_path.iterdir()] == ["trace.json"]  # and nothing beside it


def test_the_profiler_says_nothing_of_its_own(tmp_path: Path) -> None:
    program = "import sys, glassworld\nwith glassworld.profile(sys.argv[1]): pass"
    command = [sys.executable, "-c", program, str(tmp_path / "trace.json")]
    quiet = {name: value for name, value in os.environ.items() if name != "KINETO_LOG_LEVEL"}
    ended = subprocess.run(command, env=quiet, capture_output=True, text=True, check=True)
    assert (ended.stdout, ended.stderr) == ("", "")
