"""Checkpoints: the released layout both ways, and what of it is needed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from glassworld.engine.checkpoint.config import vae_spec, variant_spec, vision_spec
from glassworld.engine.checkpoint.tensor_names import (
    dit_from_released,
    dit_to_released,
    vae_from_released,
    vae_to_released,
    vision_from_released,
)
from glassworld.engine.variants.registry import VARIANTS
from glassworld.models.transformer.dit import DiT
from glassworld.models.vae.decoder import VAEDecoder
from glassworld.models.vae.encoder import VAEEncoder
from glassworld.models.vision import VisionTower
from tests.support import tiny
from tests.support.laid_out import INFERENCE, lay_out, load
from tests.support.paths import SHARED

MANIFEST = SHARED / "reference" / "checkpoint-manifest.json"
needs_manifest = pytest.mark.skipif(
    not MANIFEST.is_file(), reason="the released checkpoints' manifest is not beside this clone"
)


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return lay_out(tmp_path)


def test_a_saved_world_is_the_same_world(release: Path) -> None:
    world, original = load(release), tiny.world()
    assert world.spec.dit == original.spec.dit
    assert world.spec.vae == original.spec.vae
    for name in ("dit", "encoder", "decoder", "vision"):
        ours = getattr(original.networks, name).state_dict()
        loaded = getattr(world.networks, name).state_dict()
        assert ours.keys() == loaded.keys()
        assert all(torch.equal(ours[key], loaded[key]) for key in ours)
    assert world.generate(tiny.picture(), 3).frames.shape == (9, 32, 48, 3)


def test_a_world_can_say_something_about_itself(release: Path) -> None:
    settings = {**INFERENCE, "notice": "trained for an hour"}
    (release / "inference.yaml").write_text(yaml.safe_dump(settings))
    assert load(release).note == "trained for an hour"


def test_the_model_config_beside_the_yaml_goes_first(
    release: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "config").mkdir()
    (elsewhere / "config" / "config.json").write_text("{}")
    monkeypatch.chdir(elsewhere)
    assert load(release).spec.dit.num_layers == 3


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def manifest(file: str) -> dict[str, torch.Tensor]:
    listed = json.loads(MANIFEST.read_text())
    (entry,) = (tensors for name, tensors in listed.items() if name.startswith(file))
    with torch.device("meta"):
        return {name: torch.empty(shape) for name, shape in entry.items()}


@needs_manifest
@pytest.mark.parametrize("name", ["universal", "gta_drive", "templerun"])
def test_released_transformers_fit_their_specs(name: str) -> None:
    with torch.device("meta"):
        ours = shapes(DiT(variant_spec(name).dit))
        released = dit_from_released(manifest(VARIANTS[name].file))
    assert ours == {key: tuple(tensor.shape) for key, tensor in released.items()}


@needs_manifest
def test_the_released_vae_and_tower_fit_their_specs() -> None:
    vae, clip = manifest("Wan2.1_VAE"), vision_from_released(manifest("models_clip"))
    spec = variant_spec("universal")
    assert vae_spec(vae, Path("vae")) == spec.vae
    assert vision_spec(clip, Path("clip")) == spec.vision
    with torch.device("meta"):
        renamed = {key: tuple(tensor.shape) for key, tensor in vae_from_released(vae).items()}
        assert shapes(VAEEncoder(spec.vae)) | shapes(VAEDecoder(spec.vae)) == renamed
        assert shapes(VisionTower(spec.vision)) == {k: tuple(t.shape) for k, t in clip.items()}
        back = vae_to_released(vae_from_released(vae))
    assert {k: t.shape for k, t in back.items()} == {k: t.shape for k, t in vae.items()}


def test_names_go_both_ways() -> None:
    networks = tiny.world().networks
    vae = {**networks.encoder.state_dict(), **networks.decoder.state_dict()}
    for ours, there, back in (
        (networks.dit.state_dict(), dit_to_released, dit_from_released),
        (vae, vae_to_released, vae_from_released),
    ):
        again = back(there(ours))
        assert again.keys() == ours.keys()
        assert all(torch.equal(again[name], ours[name]) for name in ours)


def test_untrained_weights_need_no_files_but_the_configuration(release: Path) -> None:
    world = load(release, random_weights=True)
    rollout = world.generate(tiny.picture(), 3)
    assert rollout.frames.shape == (9, 32, 48, 3)
    assert torch.isfinite(rollout.latents).all()


def test_bfloat16_runs(release: Path) -> None:
    world = load(release, dtype="bfloat16")
    assert torch.isfinite(world.generate(tiny.picture(), 6).latents).all()
