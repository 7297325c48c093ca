"""Captures: what is recorded, when, and what the trace says of the run."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.autograd import profiler as autograd_profiler

import glassworld
from glassworld.errors import InputError
from glassworld.profiling import registry
from glassworld.profiling.capture import MODES, Mode, describe_block, describe_run
from glassworld.profiling.tags import tag
from tests.support import tiny
from tests.support.annotations import read_annotations


def seed_in(trace: Path) -> int | None:
    seed: int | None = json.loads(trace.read_text())["glassworld"]["config"].get("seed")
    return seed


def test_trace_describes_the_run(tmp_path: Path) -> None:
    with glassworld.profile(tmp_path / "t.json", "tags"):
        tiny.world().generate(tiny.picture(), 6)
    facts = json.loads((tmp_path / "t.json").read_text())["glassworld"]
    assert facts["config"]["mode"] == "universal"
    assert facts["config"]["model"]["num_layers"] == 3
    assert facts["config"]["num_latent_frames"] == 6
    assert facts["versions"]["torch"] == torch.__version__
    assert facts["machine"]["cores"] > 0


def test_trace_describes_the_session_whose_blocks_it_recorded(tmp_path: Path) -> None:
    world, path = tiny.world(), tmp_path / "t.json"
    still = world.space.press(())
    first, second = (world.start(tiny.picture(), seed=seed) for seed in (1, 2))
    with glassworld.profile(path, "tags"):
        first.step(still)
    assert seed_in(path) == 1
    with glassworld.profile(path, "tags"):
        second.step(still)
        world.start(tiny.picture(), seed=3)
    assert seed_in(path) == 2
    with glassworld.profile(path, "tags", blocks=(2, 3)):
        second.step(still)
        first.step(still)
        second.step(still)
        first.step(still)
    assert seed_in(path) == 2
    with glassworld.profile(path, "tags"):
        world.start(tiny.picture(), seed=3)
    assert seed_in(path) == 3
    with glassworld.profile(path, "tags"):
        pass
    assert seed_in(path) is None


def run_in_thread(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def run_in_loop(work: Callable[[], object]) -> None:
    async def main() -> None:
        await asyncio.to_thread(work)

    asyncio.run(main())


@pytest.mark.parametrize("mode", ["full", "tags"])
def test_torch_that_records_one_thread_is_a_warning_that_names_it(
    mode: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OlderConfig:
        def __init__(self) -> None: ...

    monkeypatch.setattr("torch._C._profiler._ExperimentalConfig", OlderConfig)
    path, caught = tmp_path / "t.json", list[str]()

    def work() -> None:
        with (
            warnings.catch_warnings(record=True, action="always") as heard,
            glassworld.profile(path, mode),
            tag("Mine"),
        ):
            pass
        caught.extend(str(warning.message) for warning in heard)

    thread = threading.Thread(target=work, name="recorder")
    thread.start()
    thread.join()
    (message,) = caught
    assert "records one thread: this profile holds the work of recorder alone" in message
    assert "Mine" in path.read_text()


@pytest.mark.parametrize("run", [run_in_thread, run_in_loop])
@pytest.mark.parametrize("mode", ["full", "tags"])
@pytest.mark.parametrize("blocks", [None, (1, 2)])
def test_profile_records_the_work_of_other_threads(
    tmp_path: Path,
    run: Callable[[Callable[[], object]], None],
    mode: Any,
    blocks: tuple[int, int] | None,
) -> None:
    world, path = tiny.world(), tmp_path / "t.json"
    with glassworld.profile(path, mode, blocks):
        run(lambda: world.generate(tiny.picture(), 6))
    recorded = {n for n, _, p in read_annotations(path) if p == registry.BLOCK}
    assert recorded == {f"2.3_Block_{block}" for block in range(*(blocks or (0, 2)))}
    assert ("aten::" in path.read_text()) == (mode == "full")


def test_mode_tags_records_no_operators(tmp_path: Path) -> None:
    with glassworld.profile(tmp_path / "t.json", mode="tags"), tag("Mine"):
        torch.ones(3).sum()
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    categories = {event.get("cat") for event in events}
    assert "user_annotation" in categories
    assert "cpu_op" not in categories


def test_blocks_records_only_those(tmp_path: Path) -> None:
    with glassworld.profile(tmp_path / "t.json", blocks=(1, 3)):
        tiny.world().generate(tiny.picture(), 12)
    blocks = {n for n, _, p in read_annotations(tmp_path / "t.json") if p == registry.BLOCK}
    assert blocks == {"2.3_Block_1", "2.3_Block_2"}


@pytest.mark.parametrize("first", [0, 1, 2, 5])
def test_run_that_ends_before_the_blocks_leaves_an_earlier_trace(
    tmp_path: Path, first: int
) -> None:
    path = tmp_path / "t.json"
    path.write_text("yesterday")
    with glassworld.profile(path, "tags", (first, 9)) as capture:
        tiny.world().generate(tiny.picture(), 6)
    assert capture.written == (first < 2)
    assert (path.read_text() == "yesterday") == (first >= 2)


@pytest.mark.parametrize("wanted", [(0, 2), (2, 4)])
def test_blocks_of_a_session_that_is_open_already_are_recorded(
    tmp_path: Path, wanted: tuple[int, int]
) -> None:
    world = tiny.world()
    session = world.start(tiny.picture())
    still = world.space.press(())
    for _ in range(wanted[0]):
        session.step(still)
    with glassworld.profile(tmp_path / "t.json", "tags", wanted) as capture:
        for _ in range(3):
            session.step(still)
    assert capture.written
    blocks = [n for n, _, p in read_annotations(tmp_path / "t.json") if p == registry.BLOCK]
    assert blocks == [f"2.3_Block_{block}" for block in range(*wanted)]


def test_full_capture_waits_for_the_gpus_of_its_runs_before_it_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[tuple[object, bool]] = []

    def synchronize(device: object = None) -> None:
        waits.append((device, autograd_profiler._is_profiler_enabled))

    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    first, second = torch.device("cuda:1"), torch.device("cuda:2")
    for mode in MODES:
        with glassworld.profile(tmp_path / "t.json", mode):
            describe_run({}, first)
            describe_block({}, first)
            describe_block({}, second)
            tiny.world().generate(tiny.picture(), 3)  # on a CPU, for which nobody waits
        assert {*waits} == ({(first, True), (second, True)} if mode == "full" else set())
        assert len(waits) == len({*waits})
        waits.clear()


def test_device_that_has_failed_ends_the_capture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def synchronize(device: object = None) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "synchronize", synchronize)
        with pytest.raises(RuntimeError, match="illegal"), glassworld.profile(tmp_path / "t.json"):
            describe_run({}, torch.device("cuda:1"))
    assert not autograd_profiler._is_profiler_enabled
    with glassworld.profile(tmp_path / "t.json"), tag("Mine"):
        pass
    assert "Mine" in (tmp_path / "t.json").read_text()


def test_profiler_of_torch_around_a_capture_is_refused(tmp_path: Path) -> None:
    with (
        torch.autograd.profiler.profile(use_kineto=True) as profiler,
        pytest.raises(InputError, match="end it before"),
        glassworld.profile(tmp_path / "t.json"),
    ):
        pass
    assert not list(tmp_path.iterdir())
    assert profiler.function_events is not None


@pytest.mark.parametrize("mode", ["tags", "full"])
def test_profiler_of_torch_inside_a_capture_is_an_error_and_no_crash(
    tmp_path: Path, mode: Mode
) -> None:
    with (
        pytest.raises(InputError, match="ran meanwhile"),
        glassworld.profile(tmp_path / "t.json", mode),
        torch.autograd.profiler.profile(use_kineto=True),
    ):
        pass
    assert not list(tmp_path.iterdir())
    with glassworld.profile(tmp_path / "t.json", mode), tag("Mine"):
        pass
    assert "Mine" in (tmp_path / "t.json").read_text()


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ('Load_"best"_model', "Load__best__model"),
        ("Küche_☃", "K_che__"),
        ("Two\nlines", "Two_lines"),
        ("Lone_\ud800", "Lone__"),
    ],
)
def test_tag_of_any_name_leaves_a_readable_trace(tmp_path: Path, name: str, written: str) -> None:
    with glassworld.profile(tmp_path / "t.json", "tags"), tag(name):
        pass
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    assert written in [event.get("name") for event in events]


def test_capture_survives_an_exception_and_allows_the_next(tmp_path: Path) -> None:
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
def test_profile_refuses_bad_arguments(
    tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
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


def test_profile_refuses_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder"), glassworld.profile(tmp_path):
        pass
    with glassworld.profile(tmp_path / "trace.json"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["trace.json"]  # and nothing beside it


@pytest.mark.slow
def test_profile_prints_nothing(tmp_path: Path) -> None:
    program = "import sys, glassworld\nwith glassworld.profile(sys.argv[1]): pass"
    command = [sys.executable, "-c", program, str(tmp_path / "trace.json")]
    quiet = {name: value for name, value in os.environ.items() if name != "KINETO_LOG_LEVEL"}
    ended = subprocess.run(command, env=quiet, capture_output=True, text=True, check=True)
    assert (ended.stdout, ended.stderr) == ("", "")
