"""Files that are no checkpoint, or not of this world: each gets its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from glassworld.engine.checkpoint.load import load_world
from glassworld.errors import CheckpointError, InputError, SpecError
from tests.support.laid_out import CLIP_FILE, CONFIG, DIT_FILE, INFERENCE, lay_out, load

INFINITY, NAN = float("inf"), float("nan")


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return lay_out(tmp_path)


def damage(path: Path, **changes: Any) -> None:
    """Rewrite a safetensors file without the tensors given as None, with the others replaced."""
    tensors = load_file(path)
    for name, tensor in changes.items():
        tensors.pop(name, None)
        if tensor is not None:
            tensors[name] = tensor
    save_file(tensors, path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.head.head.bias": None}, r"1 tensors missing: head\.head\.bias"),
        ({"model.surplus": torch.ones(1)}, "unexpected: surplus"),
        ({"model.head.head.bias": torch.ones(3)}, r"wrong shape: head.head.bias \[3\] instead of"),
        (
            {"model.blocks.0.action_model.keyboard_embed.0.weight": torch.ones(8, 2)},
            "would fit gta_drive",
        ),
        (
            {"model.blocks.0.action_model.keyboard_embed.0.weight": torch.tensor(1.0)},
            "no action module",
        ),
        ({"model.blocks.0.self_attn.k.bias": torch.tensor(1.0)}, "attn.k.bias.*do not fit"),
    ],
)
def test_tensors_that_do_not_fit(release: Path, changes: dict[str, Any], message: str) -> None:
    damage(release / DIT_FILE, **changes)
    with pytest.raises(CheckpointError, match=message):
        load(release)


@pytest.mark.parametrize("file", [DIT_FILE, "Wan2.1_VAE.pth", CLIP_FILE])
def test_missing_and_truncated_files(release: Path, file: str) -> None:
    path = release / file
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=f"{path.name}.*truncated"):
        load(release)
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="is an empty file"):
        load(release)
    path.unlink()
    with pytest.raises(CheckpointError, match=path.name):
        load(release)


NO_WEIGHTS = {  # what a wrong name or a failed download puts in a file's place
    "text": (b"Entry not found\n", "is a text that begins 'Entry not found', not a checkpoint"),
    "page": (b"<!DOCTYPE html>\n<title>Not found</title>\n", "is a web page"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\nsize 5\n", "is a Git LFS pointer"),
    "message": (b'{"error":"Repository not found"}', "is a server's error message"),
    "zeros": (bytes(100), "begins with zeros, as an unfinished download"),
    "pickle's start": (b"\x80\x02helloworld\n", "truncated or not a checkpoint"),
    "noise": (bytes(range(200, 256)), "truncated or not a checkpoint"),
}


@pytest.mark.parametrize("file", ["Wan2.1_VAE.pth", DIT_FILE])
@pytest.mark.parametrize("case", NO_WEIGHTS)
def test_files_that_are_no_weights(release: Path, file: str, case: str) -> None:
    content, reason = NO_WEIGHTS[case]
    (release / file).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{file}: .*{reason}") as caught:
        load(release)
    assert "\n" not in str(caught.value)


def change(path: Path, **changes: Any) -> None:
    torch.save({**torch.load(path, weights_only=True), **changes}, path)


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("Wan2.1_VAE.pth", {"conv2.weight": torch.tensor(1.0)}, "VAE of an unknown layout"),
        ("Wan2.1_VAE.pth", {"encoder.conv1.weight": torch.zeros(0)}, "unknown layout"),
        ("Wan2.1_VAE.pth", {"conv2.weight": torch.zeros(4, 4)}, "mean and std of 4 latent"),
        ("Wan2.1_VAE.pth", {"conv1.bias": torch.tensor(1.0)}, r"conv1.bias \[\] instead of"),
        ("Wan2.1_VAE.pth", {"step": 3}, "not a plain dictionary of named tensors"),
        ("Wan2.1_VAE.pth", {"a": torch.ones(2).to_sparse()}, "not a plain dictionary"),
        (CLIP_FILE, {"visual.pos_embedding": torch.tensor(1.0)}, "tower of an unknown layout"),
        (CLIP_FILE, {"visual.pos_embedding": torch.zeros(1, 0, 2)}, "tower of an unknown layout"),
        (CLIP_FILE, {"visual.transformer.x.bias": torch.ones(1)}, "tower of an unknown layout"),
        (
            CLIP_FILE,  # whose last layer does not count
            {f"visual.transformer.{10**8 + last}.a": torch.ones(1) for last in range(2)},
            "layers 100000001 must be",
        ),
        (CLIP_FILE, {"visual.transformer.0.mlp.0.weight": None}, "not a plain dictionary"),
    ],
)
def test_tensors_of_impossible_sizes(
    release: Path, file: str, changes: dict[str, Any], message: str
) -> None:
    change(release / file, **changes)
    with pytest.raises(CheckpointError, match=message) as caught:
        load(release)
    assert str(caught.value).startswith(str(release / file))


class Dangerous:
    """A pickle that would run code."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (np.array, ([1],))


def test_pickles_of_more_than_tensors_are_refused(release: Path) -> None:
    torch.save({"a": Dangerous()}, release / "Wan2.1_VAE.pth")
    with pytest.raises(CheckpointError, match="refused because loading it could run code"):
        load(release)
    torch.save([1, 2], release / "Wan2.1_VAE.pth")
    with pytest.raises(CheckpointError, match="plain dictionary"):
        load(release)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "flying"}, "flying"),
        ({"image_or_video_shape": [1, 16, 12, 5, 6]}, "multiples of 16"),
        ({"num_frame_per_block": 7}, "does not fit the attention window"),
        ({"num_frame_per_block": 0}, "positive"),
        ({"denoising_step_list": []}, "denoising_step_list"),
        ({"denoising_step_list": [333, 666]}, "fall"),
        ({"denoising_step_list": "many"}, "wrong type"),
        ({"model_kwargs": {"model_config": "nowhere"}}, "nowhere"),
        ({"model_kwargs": 3}, "mapping"),
        ({"model_kwargs": {**INFERENCE["model_kwargs"], "timestep_shift": INFINITY}}, "shift"),
        ({"context_noise": NAN}, "context_noise"),
    ],
)
def test_bad_configurations(release: Path, changes: dict[str, Any], message: str) -> None:
    (release / "inference.yaml").write_text(yaml.safe_dump({**INFERENCE, **changes}))
    with pytest.raises(InputError, match=message):
        load(release)


@pytest.mark.parametrize(
    ("setting", "values"),
    [
        ("dim", [INFINITY, NAN, -64, 0, 33, 10**12, 10**400]),
        ("ffn_dim", [INFINITY, NAN, -1, 0, 10**12]),
        ("num_layers", [INFINITY, NAN, -1, 0, 10**9]),
        ("num_heads", [INFINITY, NAN, -1, 0, 10**12]),
        ("freq_dim", [INFINITY, NAN, -2, 0, 7, 10**12]),
        ("out_dim", [INFINITY, NAN, -1, 0, 3, 10**12]),
        ("local_attn_size", [INFINITY, NAN, 0, 10**9]),
        ("eps", [INFINITY, NAN, -1, 0]),
    ],
)
def test_sizes_that_no_transformer_has(release: Path, setting: str, values: list[float]) -> None:
    for value in values:
        config = json.dumps({**CONFIG, setting: value})
        (release / "config" / "config.json").write_text(config)
        with pytest.raises(SpecError, match=f"{setting}|wrong type or value") as caught:
            load(release, random_weights=True)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "values"),
    [
        ("keyboard_dim_in", [INFINITY, -1, 0, 10**12]),
        ("mouse_dim_in", [INFINITY, -1, 3, 10**12]),
        ("hidden_size", [NAN, -1, 0, 10**12]),
        ("keyboard_hidden_dim", [NAN, -2, 0, 2, 34, 10**12]),
        ("mouse_hidden_dim", [NAN, -2, 0, 64, 10**12]),
        ("heads_num", [INFINITY, -2, 0, 3, 32, 10**12]),
        ("rope_theta", [INFINITY, NAN, -1, 0]),
        ("rope_dim_list", [[-2], [3], [18], [INFINITY], [], 4]),
        ("windows_size", [INFINITY, -1, 0, 10**9]),
    ],
)
def test_sizes_that_no_action_module_has(release: Path, setting: str, values: list[Any]) -> None:
    for value in values:
        action = {**CONFIG["action_config"], setting: value}
        config = json.dumps({**CONFIG, "action_config": action})
        (release / "config" / "config.json").write_text(config)
        with pytest.raises(SpecError, match=rf"{setting}|wrong type or value|heads of even") as bad:
            load(release, random_weights=True)
        assert "\n" not in str(bad.value)


@pytest.mark.slow
def test_files_that_are_no_configuration(release: Path) -> None:
    for text in ("a: [", "[" * 10_000):
        (release / "inference.yaml").write_text(text)
        with pytest.raises(SpecError, match="YAML"):
            load(release)
    (release / "inference.yaml").unlink()
    with pytest.raises(SpecError, match="no such"):
        load(release)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"device": "cuda:99"}, "CUDA"),
        ({"device": "abacus"}, "must be cpu"),
        ({"dtype": "float7"}, "float7"),
        ({"vae_compile_mode": "maybe"}, "maybe"),
    ],
)
def test_bad_choices(release: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(release, **arguments)


def test_incomplete_sets_of_paths(release: Path) -> None:
    with pytest.raises(InputError, match="config_path"):
        load_world(checkpoint_path=release / DIT_FILE)
    with pytest.raises(InputError, match="pretrained_model_path"):
        load_world(config_path=release / "inference.yaml")
    with pytest.raises(CheckpointError, match="no such model folder"):
        load_world(
            config_path=release / "inference.yaml", pretrained_model_path=release / "not" / "there"
        )


def test_too_little_memory_is_said_beforehand(
    release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glassworld.engine.runtime.memory._free_bytes", lambda device: 1000)
    with pytest.raises(InputError, match=r"needs .* GB .* 0\.0 GB are free"):
        load(release)
