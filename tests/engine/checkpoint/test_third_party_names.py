"""Names of wrappers, of Diffusers and of transformers, read as the release's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from glassworld.engine.checkpoint.load import load_world
from glassworld.engine.checkpoint.third_party_names import standard_name, standard_names
from glassworld.engine.world import World
from glassworld.errors import CheckpointError
from tests.support import tiny
from tests.support.diffusers import write_diffusers
from tests.support.laid_out import CLIP_FILE, DIT_FILE, lay_out, load

PREFIXES = [
    "",
    "module.",
    "_orig_mod.",
    "_fsdp_wrapped_module.",
    "diffusion_model.",
    "model.",
    "module._orig_mod.",
    "_orig_mod.module.model.",
    "model.diffusion_model.",
    "_fsdp_wrapped_module.model._orig_mod.",
    "model._fsdp_wrapped_module.module.diffusion_model.",
]


def assert_tiny_weights(world: World) -> None:
    """Assert that the world has the tiny world's weights, bit by bit."""
    for name in ("dit", "encoder", "decoder", "vision"):
        ours = getattr(tiny.world().networks, name).state_dict()
        loaded = getattr(world.networks, name).state_dict()
        assert ours.keys() == loaded.keys()
        assert all(torch.equal(ours[key], loaded[key]) for key in ours)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_standard_name_drops_what_wrappers_add(prefix: str) -> None:
    name = "blocks.0.action_model.keyboard_embed.0.weight"
    assert standard_name(prefix + name) == name


def test_standard_name_drops_wrappers_of_layers() -> None:
    name = "model.blocks.0._fsdp_wrapped_module.self_attn._orig_mod.q.weight"
    assert standard_name(name) == "blocks.0.self_attn.q.weight"


def test_standard_names_of_two_copies_is_an_error() -> None:
    tensors = {"model.head.head.bias": 1, "module.head.head.bias": 2}
    with pytest.raises(CheckpointError, match=r"two tensors are head\.head\.bias"):
        standard_names(tensors, Path("file"))


@pytest.mark.parametrize("front", ["", "generator.", "ema_model.module.", "pipe.dit._orig_mod."])
def test_standard_names_drop_what_is_in_front_of_all(front: str) -> None:
    names = ["blocks.0.self_attn.q.weight", "head.head.bias", "patch_embedding.bias"]
    tensors: dict[str, int] = {front + name: index for index, name in enumerate(names)}
    assert list(standard_names(tensors, Path("file"))) == names
    assert list(standard_names({**tensors, "n_averaged": 3}, Path("file"))) == names


def test_standard_names_keep_parts_of_the_networks() -> None:
    for names in (["visual.a.weight", "visual.b.weight"], ["blocks.0.a", "blocks.0.b"], ["a"]):
        assert list(standard_names(dict.fromkeys(names, 0), Path("file"))) == names


def test_standard_names_of_a_lora_are_an_error() -> None:
    names = ["diffusion_model.blocks.0.self_attn.q.lora_A.weight", "blocks.0.self_attn.q.alpha"]
    with pytest.raises(CheckpointError, match="file: is a LoRA"):
        standard_names(dict.fromkeys(names, 0), Path("file"))


@pytest.mark.slow
def test_load_world_reads_wrapped_names(tmp_path: Path) -> None:
    folder = lay_out(tmp_path)
    plain = {
        name.removeprefix("model."): tensor for name, tensor in load_file(folder / DIT_FILE).items()
    }
    for prefix in ("", "_orig_mod.module.model.", "model.diffusion_model.", "generator.model."):
        save_file({prefix + name: part for name, part in plain.items()}, folder / DIT_FILE)
        assert_tiny_weights(load(folder))
    for file in ("Wan2.1_VAE.pth", CLIP_FILE):
        tensors = torch.load(folder / file, weights_only=True)
        torch.save({f"module.{name}": part for name, part in tensors.items()}, folder / file)
    assert_tiny_weights(load(folder))


def test_load_world_reads_the_layout_of_diffusers(tmp_path: Path) -> None:
    world = load_world(write_diffusers(tmp_path / "world"), device="cpu")
    assert_tiny_weights(world)
    assert world.spec.dit == tiny.SPEC.dit
    assert world.spec.vae == tiny.SPEC.vae
    assert world.spec.vision == tiny.SPEC.vision
    assert world.spec.mode == "universal"
    assert (world.spec.height, world.spec.width) == (352, 640)


def test_load_world_reads_an_image_tower_without_its_prefix(tmp_path: Path) -> None:
    folder = write_diffusers(tmp_path / "world")
    file = folder / "image_encoder" / "model.safetensors"
    tensors = {name.removeprefix("vision_model."): part for name, part in load_file(file).items()}
    file.unlink()
    save_file({**tensors, "embeddings.position_ids": torch.arange(3)}, file)
    assert_tiny_weights(load_world(folder, device="cpu"))


def test_load_world_names_what_is_missing_in_the_layout_of_diffusers(tmp_path: Path) -> None:
    folder = write_diffusers(tmp_path / "world")
    file = folder / "image_encoder" / "model.safetensors"
    tensors = load_file(file)
    del tensors["vision_model.encoder.layers.0.self_attn.k_proj.weight"]
    save_file(tensors, file)
    with pytest.raises(CheckpointError, match=r"model.safetensors: .*attn\.to_qkv\.weight"):
        load_world(folder, device="cpu")
