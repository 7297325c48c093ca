"""The commands `glassworld train` and `glassworld eval`."""

import json
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

pytest.importorskip("vizdoom")

from glassworld.cli import main
from glassworld.training import cli, pipeline
from glassworld.training.eval import sessions
from glassworld.training.export import export_world
from glassworld.training.objectives.world_model import WorldModel
from glassworld.training.sources.runner.course import KEYS
from glassworld.training.sources.source import WorldFormat
from tests.support.live import until
from tests.support.small import SMALL, small_model, small_vae


def _evaluate(folder: Path, *flags: str) -> dict[str, Any]:
    """Run the command, check its files and return the scores."""
    scores, strip, video = (folder / name for name in ("scores.json", "strip.png", "both.mp4"))
    files = ["--json", str(scores), "--strip", str(strip), "--video", str(video)]
    flags = ("--starts", "1", "--minutes", "1", *files, *flags)
    result = CliRunner().invoke(cli.eval_app, list(flags))
    assert result.exit_code == 0, result.output
    assert "Following actions" in result.output
    with Image.open(strip) as image:
        assert image.size == (12 * 96, 6 * 64)
    assert video.stat().st_size > 10_000
    measured: dict[str, Any] = json.loads(scores.read_text())
    assert [name for name in measured if name != "keys"] == ["vae", "blocks", "actions", "drift"]
    return measured


def _measure_less(monkeypatch: pytest.MonkeyPatch, **sizes: int) -> None:
    """Let the command measure one held-out episode and sessions of these sizes."""
    monkeypatch.setattr(cli, "HELD_OUT_EPISODES", 1)
    monkeypatch.setattr(sessions, "EvalConfig", partial(sessions.EvalConfig, **sizes))


def _export_small_world(mode: str, source: str, folder: Path) -> None:
    """Write a small untrained world of a mode and source, with blocks of one latent frame."""
    recipe = replace(SMALL, format=WorldFormat(mode))
    model = WorldModel(recipe.spec, recipe.vision, recipe.format.frames_per_block)
    export_world(small_vae(), model, recipe, folder, source)


@pytest.mark.slow
def test_eval_command_writes_scores_strip_and_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _measure_less(monkeypatch, seconds=2, drift_seconds=2)
    export_world(small_vae(), small_model(), SMALL, tmp_path, "maze")
    scores = _evaluate(tmp_path, "--world", str(tmp_path))
    assert len(scores["blocks"]["psnr"]) == 2


@pytest.mark.slow
def test_eval_command_compares_a_world_with_what_it_learned_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _measure_less(monkeypatch, seconds=1, drift_seconds=2, driver_frames=20, driver_steps=2)
    _export_small_world("gta_drive", "drive", tmp_path)
    minute = [tmp_path / "minute.mp4", tmp_path / "minute.png"]
    flags = ["--minute-video", str(minute[0]), "--minute-strip", str(minute[1])]
    scores = _evaluate(tmp_path, "--world", str(tmp_path), *flags)
    assert minute[0].stat().st_size > 1000
    with Image.open(minute[1]) as image:
        assert image.size == (12 * 96, 4 * 64)  # playing and standing: truth, model
    assert set(scores["actions"]) >= {"turn_sign", "turn_size"}
    assert len(scores["blocks"]["psnr_gain"]) == 1
    assert main(["eval", "--world", str(tmp_path), "--source", "maze"]) == 2
    assert "mode universal; this world has mode gta_drive" in capsys.readouterr().err


@pytest.mark.slow
def test_eval_command_measures_the_embedded_world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _measure_less(monkeypatch, seconds=2, drift_seconds=6)
    scores = _evaluate(tmp_path)
    assert scores["vae"]["psnr"] > 20
    blocks = scores["blocks"]
    assert len(blocks["psnr"]) == 2
    assert blocks["psnr"][0] > blocks["psnr_wrong_actions"][0]
    assert scores["actions"]["turn_sign"] == 1


@pytest.mark.slow
def test_eval_command_tries_the_keys_of_a_runner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _measure_less(monkeypatch, seconds=1, drift_seconds=1)
    _export_small_world("templerun", "run", tmp_path)
    scores = _evaluate(tmp_path, "--world", str(tmp_path))
    assert set(scores["keys"]) == {*KEYS, "all", "intervals_95", "cases"}


def test_eval_command_asks_for_the_source_of_a_world_that_does_not_say_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _export_small_world("universal", "", tmp_path)
    assert main(["eval", "--world", str(tmp_path)]) == 2
    message = "this world does not say what it learned from; name it with --source"
    assert capsys.readouterr().err == f"error: {message}\n"


@pytest.mark.skipif(sys.platform != "linux", reason="looks processes up in /proc")
@pytest.mark.slow
def test_terminated_eval_ends_the_simulator_too(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "glassworld", "eval", "--world", "maze", "--device", "cpu"]
    with (tmp_path / "output.txt").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=tmp_path)
        assert until(lambda: "vizdoom" in _children(process.pid).values(), 60)
        simulators = [pid for pid, name in _children(process.pid).items() if name == "vizdoom"]
        process.terminate()
        assert process.wait(60) == 128 + signal.SIGTERM
    assert until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in simulators), 20)
    assert "Traceback" not in (tmp_path / "output.txt").read_text(encoding="utf-8")


def _children(process: int) -> dict[int, str]:
    """Return the names of a process's children by their ids."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, fields = path.read_text().partition("(")[2].rpartition(")")
        except OSError:
            continue
        if int(fields.split()[1]) == process:
            found[int(path.parent.name)] = name
    return found


@pytest.mark.parametrize(
    "option", ["--json", "--strip", "--video", "--minute-video", "--minute-strip"]
)
def test_eval_command_refuses_files_it_cannot_write_before_measuring(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", option, str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path}: is a folder; name the file to write\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_train_command_interrupted_says_that_the_same_command_continues(
    number: signal.Signals,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
    monkeypatch.setattr(pipeline, "train_world", lambda *_: signal.raise_signal(number))
    try:
        assert main(["train", "--preset", "smoke", "--output", str(tmp_path)]) == code
    finally:
        signal.signal(signal.SIGINT, before)
    printed = capsys.readouterr()
    assert printed.err.startswith("interrupted: finished stages and the last checkpoint in ")
    assert printed.err.endswith(" are kept; the same command continues\n")
    assert not printed.out


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--compile", "--gradient-checkpointing"], "compile: has no effect with --gradient-"),
        (["--mapping", "keys.yaml"], "mapping: has no effect with --source maze"),
        (["--mode", "universal"], "mode: has no effect without --recordings"),
        (["--recordings", ".", "--source", "drive"], "source: has no effect with --recordings"),
        (["--recordings", "nowhere"], "nowhere: no such folder of recordings"),
        (["--source", "gymnasium:CarRacing-v3"], "gymnasium:CarRacing-v3: needs an environment's"),
        (
            ["--source", "gymnasium:CarRacing-v3", "--mapping", "keys.yaml"],
            "keys.yaml: no such mapping",
        ),
    ],
)
def test_train_command_refuses_data_in_one_line_and_writes_nothing(
    flags: list[str],
    problem: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--preset", "smoke", *flags]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"error: {problem}")
    assert printed.count("\n") == 1
    assert not list(tmp_path.iterdir())
