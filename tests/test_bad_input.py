"""What the whole command answers to bad input: one line, exit code 2, nothing written."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from glassworld.cli import inference
from glassworld.engine.runtime import memory
from tests.support.bomb import png_claiming
from tests.support.paths import A_FILE, UNWRITABLE
from tests.support.release import TRANSFORMER, VAE, VISION, write_release


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _change_tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        tensors = load_file(folder / TRANSFORMER)
        change(tensors)
        save_file(tensors, folder / TRANSFORMER)

    return damage


def _change_settings(**changes: object) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "inference.yaml"
        path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **changes}))

    return damage


def _made_for_runs(folder: Path) -> None:
    """Set the mode of seven keys for a model that knows as many but has a mouse."""
    _change_settings(mode="templerun")(folder)
    path = folder / "config" / "config.json"
    settings = json.loads(path.read_text())
    settings["action_config"]["keyboard_dim_in"] = 7
    path.write_text(json.dumps(settings))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no configuration": (lambda f: (f / "inference.yaml").unlink(), "no such configuration"),
    "configuration is no YAML": (
        lambda f: (f / "inference.yaml").write_text("a: [b"),
        "not readable as YAML",
    ),
    "no model configuration": (lambda f: (f / "config/config.json").unlink(), "model_config"),
    "unknown mode": (_change_settings(mode="tetris"), "tetris"),
    "mode of other keys": (_change_settings(mode="gta_drive"), "which knows 4 keys and a mouse"),
    "mode without the model's mouse": (_made_for_runs, "knows 7 keys and a mouse"),
    "no frames a second": (_change_settings(frame_rate=0), "frame_rate must be positive"),
    "no image shape": (_change_settings(image_or_video_shape=[]), "wrong type or value"),
    "odd frame size": (_change_settings(image_or_video_shape=[1, 16, 12, 5, 6]), "inference.yaml"),
    "no transformer": (lambda f: (f / TRANSFORMER).unlink(), "no such checkpoint"),
    "truncated transformer": (lambda f: _truncate(f / TRANSFORMER), "truncated"),
    "truncated VAE": (lambda f: _truncate(f / VAE), "truncated"),
    "truncated image tower": (lambda f: _truncate(f / VISION), "truncated"),
    "no VAE": (lambda f: (f / VAE).unlink(), "VAE"),
    "missing tensors": (
        _change_tensors(lambda t: t.pop("model.head.head.weight")),
        "1 tensors missing: head.head.weight",
    ),
    "extra tensors": (
        _change_tensors(lambda t: t.update(more=torch.zeros(2))),
        "1 tensors unexpected: more",
    ),
    "another variant's tensors": (
        _change_tensors(
            lambda t: t.update(
                {n: w[:, :2].clone() for n, w in t.items() if n.endswith("keyboard_embed.0.weight")}
            )
        ),
        "would fit gta_drive",
    ),
    "a pickle of code": (
        lambda f: torch.save({"conv1.weight": print}, f / VAE),
        "refused because loading it could run code",
    ),
    "a pickle of no tensors": (lambda f: torch.save([1, 2], f / VAE), "not a plain dictionary"),
    "no picture": (lambda f: (f / "picture.png").unlink(), "no such image"),
    "unreadable picture": (lambda f: (f / "picture.png").write_text("?"), "not a readable image"),
    "truncated picture": (lambda f: _truncate(f / "picture.png"), "damaged or truncated"),
    "tiny picture": (lambda f: Image.new("RGB", (9, 9)).save(f / "picture.png"), "9x9 pixels"),
    "gigantic picture": (
        lambda f: (f / "picture.png").write_bytes(png_claiming(50_000, 50_000)),
        "over 64 megapixels",
    ),
}

FLAGS: dict[str, tuple[list[str], str]] = {
    "frames not in blocks": (["--num_output_frames", "4"], "multiple of the 3"),
    "no frames": (["--num_output_frames", "0"], "multiple of the 3"),
    "negative frames": (["--num_output_frames", "-3"], "multiple of the 3"),
    "absurdly many frames": (["--num_output_frames", "3" + "0" * 30], "at most 1000000"),
    "frames for months": (["--num_output_frames", "30000000"], "is 119999997 pixel frames"),
    "few actions": (["--actions", "w*12", "--num_output_frames", "6"], "12 rows.*needs 21"),
    "too few actions for a block": (["--actions", "w*3"], "3 rows.*needs 9"),
    "unknown key": (["--actions", "w*12 x*12"], "unknown key 'x'"),
    "keys held forever": (["--actions", "w*" + "9" * 5_000], "all together at most 1000000"),
    "no action file": (["--actions", "nowhere.csv"], "no such action file"),
    "no CUDA": (["--device", "cuda:99"], "try device cpu"),
    "unknown device": (["--device", "abacus"], "must be cpu"),
    "unknown dtype": (["--dtype", "int3"], "float32"),
    "unknown compile mode": (["--vae_compile_mode", "maybe"], "auto, force, none"),
    "unknown accelerator": (["--accelerate", "layers,magic"], "'magic'.*convolutions, kernels"),
    "no tiny decoder": (["--tiny_decoder", "nowhere.pth"], "nowhere.pth"),
    "unknown profile mode": (["--enable_profile", "--profile_mode", "some"], "full, tags"),
    "a profile mode alone": (["--profile_mode", "tags"], "without --enable-profile"),
    "profile blocks alone": (["--profile_blocks", "0:1"], "without --enable-profile"),
    "blocks of words": (["--enable_profile", "--profile_blocks", "a:b"], "A:B"),
    "endless blocks": (["--enable_profile", "--profile_blocks", "1:" + "9" * 5_000], "A:B"),
    "blocks backwards": (["--enable_profile", "--profile_blocks", "3:1"], "A:B"),
    "blocks beyond": (["--enable_profile", "--profile_blocks", "50:51"], "blocks 0 to 49"),
    "no initial latents": (["--initial_latents", "nowhere.safetensors"], "no such file"),
    "unwritable folder": (
        ["--output_folder", f"{UNWRITABLE}/outputs"],
        "choose another output folder",
    ),
    "a folder in a file": (["--output_folder", f"{A_FILE}/out"], "choose another output folder"),
    "unwritable latents": (["--save_latents", f"{UNWRITABLE}/new/a.safetensors"], "new: cannot be"),
    "latents in a folder's place": (["--save_latents", "."], "is a folder; name the file"),
    "one file for two things": (
        ["--save_latents", "a.gws", "--save_session", "./a.gws"],
        "a.gws: this run writes another file of that name",
    ),
    "a session in the video's place": (
        ["--output_folder", "new", "--save_session", "new/demo.mp4"],
        "new/demo.mp4: this run writes another file of that name",
    ),
    "no picture here": (["--img_path", "nope.png"], "nope.png: no such image"),
}


@pytest.fixture
def release(tmp_path: Path) -> list[str]:
    return [*write_release(tmp_path / "release"), "--output_folder", str(tmp_path / "out")]


def _refused(flags: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert inference(flags) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert re.search(said, error), error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("case", DAMAGES)
def test_damaged_files(
    case: str, tmp_path: Path, release: list[str], capsys: pytest.CaptureFixture
) -> None:
    damage, said = DAMAGES[case]
    damage(tmp_path / "release")
    _refused(release, said, tmp_path, capsys)


@pytest.mark.parametrize("case", FLAGS)
def test_wrong_flags(
    case: str, tmp_path: Path, release: list[str], capsys: pytest.CaptureFixture
) -> None:
    flags, said = FLAGS[case]
    _refused([*release, *flags], said, tmp_path, capsys)


def test_a_folder_in_the_videos_place(
    tmp_path: Path, release: list[str], capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "out" / "demo.mp4").mkdir(parents=True)
    assert inference(release) == 2
    assert "demo.mp4: is a folder; name the file" in capsys.readouterr().err
    assert [each.name for each in (tmp_path / "out").iterdir()] == ["demo.mp4"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("forward,back\n1,0\n", "do not fit universal"),
        ("forward,back,left,right\n1,0,0,nan\n", "row 0, column 3 is nan"),
        ("forward,back,left,right\n1,0,0,2\n", "row 0, column 3 is 2"),
        ("forward,back,left,right\n1,0,0," + "1" * 200_000, "not a table of numbers"),
    ],
)
def test_bad_action_files(
    text: str, said: str, tmp_path: Path, release: list[str], capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "actions.csv").write_text(text)
    _refused([*release, "--actions", str(tmp_path / "actions.csv")], said, tmp_path, capsys)


def test_too_little_memory_says_how_much_is_needed(
    tmp_path: Path,
    release: list[str],
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "_free_bytes", lambda device: 1000)
    _refused(release, "needs? .* GB", tmp_path, capsys)


def test_a_failed_run_leaves_the_last_one(tmp_path: Path, release: list[str]) -> None:
    video = tmp_path / "out" / "demo.mp4"
    video.parent.mkdir()
    video.write_bytes(b"yesterday's")
    assert inference([*release, "--num_output_frames", "5"]) == 2
    assert video.read_bytes() == b"yesterday's"


def test_what_cannot_run_makes_no_folder(tmp_path: Path, release: list[str]) -> None:
    latents = tmp_path / "kept" / "latents.safetensors"
    flags = ["--save_latents", str(latents), "--img_path", str(tmp_path / "nope.png")]
    before = sorted(tmp_path.rglob("*"))
    assert inference([*release, *flags]) == 2
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
@pytest.mark.parametrize("flags", [["--accelerate", "layers"], ["--vae_compile_mode", "force"]])
def test_compiling_where_nothing_can_be_kept(
    flags: list[str],
    tmp_path: Path,
    release: list[str],
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", f"{A_FILE}/cache")
    _refused([*release, *flags], "cannot be written to .*set XDG_CACHE_HOME", tmp_path, capsys)


UNREADABLE = {
    "no transformer": lambda f: (f / TRANSFORMER).unlink(),
    "truncated transformer": lambda f: _truncate(f / TRANSFORMER),
    "no finite weights": _change_tensors(lambda t: t["model.head.head.weight"].fill_(math.nan)),
    "truncated VAE": lambda f: _truncate(f / VAE),
    "truncated image tower": lambda f: _truncate(f / VISION),
}


@pytest.mark.parametrize("case", UNREADABLE)
@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--actions", "w*12 x*12"], "unknown key 'x'"),
        (["--actions", "nowhere.csv"], "no such action file"),
        (["--img_path", "nope.png"], "nope.png: no such "),
        (["--initial_latents", "nowhere.safetensors"], "no such file"),
        (["--output_folder", f"{UNWRITABLE}/outputs"], "choose another output folder"),
        (["--save_latents", f"{UNWRITABLE}/new/a.safetensors"], "new: cannot be"),
    ],
)
def test_generate_checks_every_input_before_it_reads_weights(
    case: str,
    flags: list[str],
    said: str,
    tmp_path: Path,
    release: list[str],
    capsys: pytest.CaptureFixture,
) -> None:
    UNREADABLE[case](tmp_path / "release")
    _refused([*release, *flags], said, tmp_path, capsys)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--world", "labyrinth"], "Embedded worlds: drive, maze, run. Or name a folder .* hub"),
        (["--world", "maze", "--variant", "doom"], "one of universal, gta_drive, templerun"),
        (["--world", "maze", "--variant", "gta_drive"], "says mode 'universal'"),
        (["--variant", "gta_drive"], "as world, such as Skywork/Matrix-Game-2.0"),
        (["--checkpoint_path", "a.safetensors"], "give pretrained_model_path too"),
        (["--world", f"{A_FILE}"], "is a file; name the folder of a world"),
    ],
)
def test_generate_refuses_a_world_that_there_is_not(
    flags: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    _refused([*flags, "--output_folder", str(tmp_path / "out")], said, tmp_path, capsys)
