"""The command line as people use it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from safetensors.numpy import load_file

from glassworld import __version__
from glassworld.cli import COMMANDS, inference, main
from tests.support.paths import ROOT
from tests.support.release import write_release

FLAGS = """world variant config_path checkpoint_path pretrained_model_path img_path output_folder
seed device num_output_frames enable_profile vae_compile_mode dtype actions save_latents
initial_latents profile_mode profile_blocks random_weights accelerate tiny_decoder resume
save_session light"""


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_release(tmp_path_factory.mktemp("release"))


def _frames(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def _events(path: Path) -> list[str]:
    return [event.get("name", "") for event in json.loads(path.read_text())["traceEvents"]]


@pytest.mark.parametrize(
    "command", [["-m", "glassworld"], ["-m", "glassworld", "generate"], ["inference.py"]]
)
def test_help_imports_nothing_heavy(command: list[str]) -> None:
    result = subprocess.run(
        [sys.executable, "-X", "importtime", *command, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "glassworld.cli" in imported
    assert not imported & {"torch", "numpy", "av", "PIL"}
    assert "Ctrl-C" in result.stdout or "generate" in result.stdout


def test_the_version_and_a_wrong_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__
    assert main(["gnerate"]) == 2
    assert "generate" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_other_folders_are_mounted(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--help"]) == 0
    said = capsys.readouterr().out
    assert f"glassworld {command}" in said
    assert "completion" not in said


@pytest.mark.parametrize(
    ("run", "arguments", "where"),
    [
        (main, ["gnerate"], "glassworld"),
        (main, ["generate", "--sed", "1"], "glassworld generate"),
        (main, ["trace", "tpo"], "glassworld trace"),
        (main, ["trace", "top", "a.json", "-n", "0"], "glassworld trace top"),
        (main, ["bench", "spede"], "glassworld bench"),
        (main, ["eval", "--nowhere"], "glassworld eval"),
        (inference, ["--sed", "1"], "inference.py"),
    ],
)
def test_an_error_of_usage_names_the_help_of_the_command_one_was_in(
    run: Callable[[list[str]], int],
    arguments: list[str],
    where: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(arguments) == 2
    assert capsys.readouterr().err.rstrip().endswith(f"(see {where} --help)")


@pytest.mark.parametrize("command", ["train", "eval", "bench run"])
def test_help_is_whole_in_a_narrow_terminal(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main([*command.split(), "--help"]) == 0
    said = capsys.readouterr().out
    assert "…" not in said
    assert "`" not in said


def test_the_familiar_flags_and_the_dashed_ones_are_the_same(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    inference(["--help"])
    familiar = capsys.readouterr().out
    main(["generate", "--help"])
    dashed = capsys.readouterr().out
    for flag in FLAGS.split():
        assert f"--{flag} " in familiar
        assert f"--{flag.replace('_', '-')} " in dashed


def test_a_run_writes_videos_trace_and_latents_and_says_so(
    tmp_path: Path, release: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "outputs"
    latents = tmp_path / "latents.safetensors"
    flags = [
        "--output_folder",
        str(out),
        "--num_output_frames",
        "9",
        "--save_latents",
        str(latents),
    ]
    assert inference([*release, *flags, "--enable_profile", "--profile_mode", "tags"]) == 0
    said = capsys.readouterr().out
    for name in ("demo.mp4", "demo_icon.mp4", "profile_trace.json", "profile_trace_report.html"):
        assert str(out / name) in said
        assert (out / name).stat().st_size > 0
    for fact in ("first block", "frames per second", "block 3/3", "perfetto"):
        assert fact in said
    assert _frames(out / "demo.mp4").shape == (33, 32, 48, 3)
    assert load_file(latents)["latents"].shape == (1, 16, 9, 4, 6)
    names = _events(out / "profile_trace.json")
    for stage in ("1_Data_Preparation", "2_Pipeline_Inference", "2.3_Block_2"):
        assert names.count(stage) == 1
    assert "3_Video_Postprocessing" in names
    assert "4_Video_Export" in names


def test_the_same_seed_gives_the_same_video_and_dashes_work(
    tmp_path: Path, release: list[str]
) -> None:
    runs = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    flags = [*release, "--num_output_frames", "3", "--seed", "9", "--output_folder", str(tmp_path)]
    assert inference([*flags, "--save_latents", str(runs[0])]) == 0
    dashed = [flag.replace("_", "-") if flag.startswith("--") else flag for flag in flags]
    assert main(["generate", *dashed, "--save-latents", str(runs[1])]) == 0
    first, second = (load_file(path)["latents"] for path in runs)
    np.testing.assert_allclose(first, second, atol=1e-5)


@pytest.mark.parametrize("flag", ["--profile_mode", "--profile-mode"])
@pytest.mark.parametrize("run", [inference, lambda flags: main(["generate", *flags])])
def test_both_commands_take_both_spellings(
    flag: str, run: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([flag, "some_mode"]) == 2
    assert "'some_mode': must be one of full, tags" in capsys.readouterr().err


@pytest.mark.parametrize(("actions", "pixels"), [("w*9", 9), ("w*12 w+left*24", 33), ("d*45", 45)])
def test_the_actions_say_how_long_the_run_is(
    tmp_path: Path, release: list[str], actions: str, pixels: int
) -> None:
    assert inference([*release, "--output_folder", str(tmp_path), "--actions", actions]) == 0
    assert len(_frames(tmp_path / "demo.mp4")) == pixels


def test_a_run_goes_on_from_saved_latents(tmp_path: Path, release: list[str]) -> None:
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    flags = ["--output_folder", str(tmp_path), "--num_output_frames", "3"]
    assert inference([*release, *flags, "--save_latents", str(first)]) == 0
    flags += ["--initial_latents", str(first), "--save_latents", str(second)]
    assert inference([*release, *flags]) == 0
    before, after = load_file(first)["latents"], load_file(second)["latents"]
    assert after.shape[2] == 6
    np.testing.assert_array_equal(after[:, :, :3], before)


def test_only_the_asked_blocks_are_recorded(tmp_path: Path, release: list[str]) -> None:
    flags = ["--output_folder", str(tmp_path), "--num_output_frames", "12", "--enable_profile"]
    assert inference([*release, *flags, "--profile_mode", "tags", "--profile_blocks", "1:3"]) == 0
    names = _events(tmp_path / "profile_trace.json")
    assert {name for name in names if name.startswith("2.3_Block_")} == {
        "2.3_Block_1",
        "2.3_Block_2",
    }


def _stopped(release: list[str], folder: Path, *flags: str) -> str:
    """Return the messages of a long run that Ctrl-C ends in its first blocks."""
    if sys.platform == "win32":
        pytest.skip("Windows sends Ctrl-C to whole groups of processes")
    flags = (*flags, "--num_output_frames", "600", "--enable_profile", "--profile_mode", "tags")
    run = subprocess.Popen(
        [sys.executable, "inference.py", *release, *flags, "--output_folder", str(folder)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert run.stdout is not None
    for line in run.stdout:
        if line.startswith("block "):
            run.send_signal(signal.SIGINT)
            break
    said, _ = run.communicate(timeout=300)
    assert run.returncode == 130
    assert "ending after this block" in said
    return said


@pytest.mark.slow
def test_ctrl_c_ends_after_the_block_with_a_video_and_a_trace(
    tmp_path: Path, release: list[str]
) -> None:
    _stopped(release, tmp_path)
    made = len(_frames(tmp_path / "demo.mp4"))
    assert len(_frames(tmp_path / "demo_icon.mp4")) == made
    blocks = {n for n in _events(tmp_path / "profile_trace.json") if n.startswith("2.3_Block_")}
    assert made == 12 * len(blocks) - 3
    assert len(blocks) < 200


@pytest.mark.slow
def test_a_run_that_ends_before_the_asked_blocks_says_so_and_leaves_an_earlier_trace(
    tmp_path: Path, release: list[str]
) -> None:
    trace = tmp_path / "profile_trace.json"
    said = _stopped(release, tmp_path, "--profile_blocks", "198:199")
    assert "trace        none: the run ended before blocks 198:199\n" in said
    assert "report" not in said
    trace.write_text("yesterday's")
    said = _stopped(release, tmp_path, "--profile_blocks", "198:199")
    assert f"blocks 198:199; {trace} is from an earlier run\n" in said
    assert "report" not in said
    assert trace.read_text() == "yesterday's"
    assert not (tmp_path / "profile_trace_report.html").exists()
