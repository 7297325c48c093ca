"""`glassworld generate` writes what it generates block by block, and keeps none of it."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any, Self

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file

from glassworld import generate
from glassworld.cli import main
from glassworld.engine.checkpoint import locate
from glassworld.engine.checkpoint.load import load_world
from glassworld.engine.media.overlay import draw_keys
from glassworld.engine.media.video import write_video
from glassworld.engine.session_file import read_header
from glassworld.errors import InputError
from glassworld.progress import Interrupt
from tests.support.disk import fill, small_disk
from tests.support.paths import ROOT
from tests.support.release import write_release


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_release(tmp_path_factory.mktemp("release"))


def run(release: list[str], folder: Path, *flags: object) -> int:
    return main(["generate", *release, "--output-folder", str(folder), *map(str, flags)])


def read_video(path: Path) -> NDArray[np.uint8]:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


class Watched:
    """Counts the blocks whose frames are alive whenever keys are drawn."""

    def __init__(self) -> None:
        self.blocks: list[weakref.ref[NDArray[np.uint8]]] = []
        self.alive: list[int] = []

    def __call__(self, frames: NDArray[np.uint8], *others: Any) -> NDArray[np.uint8]:
        self.blocks.append(weakref.ref(frames))
        gc.collect()
        self.alive.append(sum(block() is not None for block in self.blocks))
        return draw_keys(frames, *others)


@pytest.mark.slow
def test_run_keeps_no_more_than_two_blocks_of_frames(
    tmp_path: Path, release: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched()
    monkeypatch.setattr(generate, "draw_keys", watched)
    assert run(release, tmp_path, "--num-output-frames", 18) == 0
    assert len(watched.alive) == 6
    assert max(watched.alive) <= 2


def test_files_of_a_run_hold_what_the_library_generates(tmp_path: Path, release: list[str]) -> None:
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    flags = ["--num-output-frames", 6, "--seed", 7]
    assert run(release, tmp_path, *flags, "--save-latents", first) == 0
    flags += ["--initial-latents", first, "--save-latents", second]
    assert run(release, tmp_path, *flags) == 0
    world = load_world(config_path=release[1], pretrained_model_path=release[3])
    image = release[release.index("--img_path") + 1]
    rollout = world.generate(image, 6, 7, initial_latents=first)
    np.testing.assert_allclose(load_file(second)["latents"], rollout.latents, atol=1e-5)
    with_keys = draw_keys(rollout.frames, rollout.actions, world.space)
    for name, frames in (("demo.mp4", rollout.frames), ("demo_icon.mp4", with_keys)):
        write_video(tmp_path / "expected.mp4", frames, world.spec.frame_rate)
        video, expected = read_video(tmp_path / name), read_video(tmp_path / "expected.mp4")
        assert video.shape == frames.shape
        assert np.abs(video.astype(int) - expected).mean() < 1


def test_disk_that_does_not_hold_the_videos_is_one_line_and_leaves_nothing(
    tmp_path: Path, release: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with small_disk(tmp_path / "disk", 200) as disk:
        fill(disk)
        assert run(release, disk, "--num-output-frames", 9) == 2
        assert [path.name for path in disk.iterdir()] == ["filler"]
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert "mp4: cannot be written: the disk is full" in said


@pytest.mark.slow
def test_disk_that_does_not_hold_the_latents_keeps_the_videos(
    tmp_path: Path, release: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with small_disk(tmp_path / "disk", 16) as disk:  # two blocks of 4.6 KB, not their file
        latents = disk / "latents.safetensors"
        flags = ["--num-output-frames", 18, "--save-latents", latents]
        assert run(release, tmp_path / "out", *flags, "--enable-profile") == 2
        assert list(disk.iterdir()) == []
    assert f"error: {latents}: cannot be written: the disk is full" in capsys.readouterr().err
    frames = len(read_video(tmp_path / "out" / "demo.mp4"))
    assert frames == len(read_video(tmp_path / "out" / "demo_icon.mp4"))
    assert 9 <= frames < 69
    assert (tmp_path / "out" / "profile_trace.json").is_file()


BAD_INPUTS = {
    "image": (["--img-path", "none.png"], "none.png: no such image"),
    "latents": (["--initial-latents", "none.safetensors"], "none.safetensors: no such file"),
    "folder": (["--output-folder", "/proc/none"], "/proc/none: cannot be written to"),
    "latents to save": (["--save-latents", "/proc/none/a"], "/proc/none: cannot be written to"),
    "actions of no variant": (["--actions", "w*12 x*3"], "unknown key 'x'"),
    "actions of another variant": (
        ["--variant", "gta_drive", "--actions", "camera_right*9"],
        "unknown key 'camera_right'",
    ),
    "missing actions": (["--actions", "none.csv"], "none.csv: no such action file"),
}


@pytest.mark.parametrize(("flags", "message"), BAD_INPUTS.values(), ids=BAD_INPUTS)
def test_bad_input_is_refused_before_the_hub_is_asked(
    flags: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def ask(name: str) -> list[str]:
        raise InputError(f"{name}: the hub was asked")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(locate, "list_files", ask)
    assert main(["generate", "--world", "somebody/world", *flags]) == 2
    assert f"error: {message}" in capsys.readouterr().err
    fitting = ["--variant", "templerun", "--actions", "a*9"]
    assert main(["generate", "--world", "somebody/world", *fitting]) == 2
    assert "the hub was asked" in capsys.readouterr().err


@pytest.mark.slow
def test_folder_of_any_name_works_in_the_c_locale(tmp_path: Path, release: list[str]) -> None:
    folder, latents = tmp_path / "vidéos 東京", tmp_path / "vidéos 東京" / "潜.safetensors"
    flags = ["--output-folder", str(folder), "--save-latents", str(latents), "--enable-profile"]
    command = [sys.executable, "-m", "glassworld", "generate", "--num-output-frames", "3"]
    result = subprocess.run(
        [*command, *release, *flags],
        env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0"},
        cwd=ROOT,
        capture_output=True,
    )
    assert (result.returncode, result.stderr) == (0, b"")
    assert {path.name for path in folder.iterdir()} == {
        "demo.mp4",
        "demo_icon.mp4",
        "profile_trace.json",
        "profile_trace_report.html",
        "潜.safetensors",
    }


def test_ctrl_c_before_the_first_block_ends_after_it(
    tmp_path: Path, release: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Asked(Interrupt):
        def __enter__(self) -> Self:
            self.asked = True
            return super().__enter__()

    monkeypatch.setattr(generate, "Interrupt", Asked)
    session = tmp_path / "walk.gws"
    flags = ["--num-output-frames", 9, "--save-session", session]
    assert run(release, tmp_path, *flags) == 130
    assert len(read_video(tmp_path / "demo.mp4")) == 9
    assert read_header(session).block == 1


def test_light_session_of_a_world_with_sinks_is_refused_before_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = write_release(tmp_path / "release")
    config = tmp_path / "release" / "config" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "sink_size": 1}))
    save = ["--save-session", tmp_path / "walk.gws"]
    assert run(flags, tmp_path / "out", *save, "--light") == 2
    assert "light: this world has attention sinks" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_resumed_run_goes_on_where_the_saved_one_ended(
    tmp_path: Path, release: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    world = load_world(config_path=release[1], pretrained_model_path=release[3])
    image = release[release.index("--img_path") + 1]
    session, light = tmp_path / "walk.gws", tmp_path / "light.gws"
    actions = ["--actions", "w*9 w+left*12 a*12"]
    assert run(release, tmp_path / "a", "--seed", 7, *actions, "--save-session", session) == 0
    assert f"session      {session}" in capsys.readouterr().out
    resumed = [*release[:4], "--resume", str(session)]
    flags = ["--save-session", light, "--light", "--save-latents", tmp_path / "b.safetensors"]
    flags += ["--enable-profile", "--profile-mode", "tags", "--profile-blocks", "3:4"]
    assert run(resumed, tmp_path / "b", "--actions", "a*15", *flags) == 0
    trace = (tmp_path / "b" / "profile_trace.json").read_text()
    assert "2.3_Block_3" in trace  # as the session counts them
    assert "2.3_Block_2" not in trace
    expected = world.start(image, 7, 9)
    list(expected.stream(9, "w*9 w+left*12 a*12"))
    report = next(expected.stream(3, "a*12"))
    saved = load_file(tmp_path / "b.safetensors")["latents"]
    np.testing.assert_allclose(saved, report.latents, atol=1e-5)
    assert len(read_video(tmp_path / "b" / "demo.mp4")) == 12
    assert light.stat().st_size < session.stat().st_size / 10
    assert world.resume(light).state.start == 12


def test_flags_that_a_resumed_session_has_no_use_for_are_refused(
    tmp_path: Path, release: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    resume = ["--resume", str(tmp_path / "none.gws")]
    cases = {
        "seed: a resumed session has its own": [*release[:4], *resume, "--seed", "3"],
        "img_path: a resumed session has its own": [*release, *resume],
        "none.gws: no such file": [*release[:4], *resume],
        "light: has no effect without --save-session": [*release, "--light"],
    }
    for message, flags in cases.items():
        assert run(flags, tmp_path / "out") == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
