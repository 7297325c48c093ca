"""A training starts from an exported world of the same size, or of a smaller transformer."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from glassworld.cli import main
from glassworld.engine.checkpoint.options import LoadOptions
from glassworld.engine.networks import Networks
from glassworld.errors import CheckpointError
from glassworld.training.export import export_world
from glassworld.training.objectives.transformer import DiTRecipe
from glassworld.training.objectives.vae import VAE
from glassworld.training.objectives.world_model import WorldModel
from glassworld.training.recipes import TrainingRecipe, preset_recipe
from glassworld.training.sources.source import WorldFormat
from glassworld.training.weights.warm_start import (
    load_start,
    start_spec,
    warm_start_model,
    warm_start_vae,
)
from tests.support.release import write_release
from tests.support.small import SMALL, SMALL_VAE, predicted_flow, small_model, small_vae

FITTING = replace(preset_recipe("smoke"), vae=SMALL_VAE, dit=SMALL)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a world with the weights of `small_vae` and `small_model`."""
    folder = tmp_path_factory.mktemp("world")
    export_world(small_vae(), small_model(), SMALL, folder)
    return folder


@pytest.fixture(scope="module")
def start(exported: Path) -> Networks:
    return load_start(LoadOptions(world=exported), FITTING)[1]


def test_warm_start_vae_copies_encoder_and_decoder(start: Networks) -> None:
    vae, copy = small_vae(), VAE(SMALL_VAE.spec)
    warm_start_vae(copy, start)
    pixels = torch.rand(1, 3, 5, 32, 32) * 2 - 1
    with torch.no_grad():
        latents = vae.encoder(pixels)
        torch.testing.assert_close(copy.encoder(pixels), latents, atol=0.05, rtol=0)
        rebuilt = vae.decoder(latents)
        torch.testing.assert_close(copy.decoder(latents), rebuilt, atol=0.05, rtol=0)


def test_load_start_refuses_a_world_of_another_mode(exported: Path) -> None:
    drive = replace(SMALL, format=WorldFormat("gta_drive"))
    with pytest.raises(CheckpointError, match=r"its mode is universal, but .* mode gta_drive"):
        load_start(LoadOptions(world=exported), replace(FITTING, dit=drive))


def test_warm_start_model_copies_transformer_and_image_tower(start: Networks) -> None:
    model, copy = small_model(), WorldModel(SMALL.spec, SMALL.vision)
    warm_start_model(copy, start)
    for part in ("dit", "vision"):
        copied = getattr(copy, part).state_dict()
        for name, weight in getattr(model, part).state_dict().items():
            torch.testing.assert_close(copied[name], weight, atol=1e-2, rtol=1e-2)


def test_warm_start_model_grows_a_smaller_transformer(exported: Path) -> None:
    larger = replace(SMALL, layers=5, ffn_dim=80)
    recipe, start = load_start(LoadOptions(world=exported), replace(FITTING, dit=larger))
    assert recipe.dit.spec == larger.spec
    small, grown = small_model(), WorldModel(larger.spec, larger.vision)
    warm_start_model(grown, start)
    torch.testing.assert_close(predicted_flow(grown), predicted_flow(small), atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize(
    "recipe",
    [
        replace(FITTING, vae=replace(SMALL_VAE, width=8)),
        replace(FITTING, vae=replace(SMALL_VAE, residual_blocks=2)),
        replace(FITTING, dit=DiTRecipe()),
        replace(FITTING, dit=replace(SMALL, layers=5), lora=4),
    ],
)
def test_load_start_takes_the_sizes_of_a_world_that_cannot_grow(
    exported: Path, recipe: TrainingRecipe
) -> None:
    fitted, start = load_start(LoadOptions(world=exported), recipe)
    assert fitted.dit.spec == start.dit.spec == SMALL.spec
    assert fitted.dit.vision == SMALL.vision
    vae, model = VAE(fitted.vae.spec), WorldModel(fitted.dit.spec, fitted.dit.vision)
    warm_start_vae(vae, start)
    warm_start_model(model, start)
    torch.testing.assert_close(
        predicted_flow(model), predicted_flow(small_model()), atol=2e-2, rtol=2e-2
    )


def test_load_start_keeps_the_sampler_of_the_world(tmp_path: Path) -> None:
    export_world(small_vae(), small_model(), replace(SMALL, denoising_steps=(900, 400)), tmp_path)
    recipe, _ = load_start(LoadOptions(world=tmp_path), FITTING)
    assert recipe.dit.denoising_steps == (900, 400)
    single = replace(SMALL, format=WorldFormat("universal"))  # blocks of another length
    recipe, _ = load_start(LoadOptions(world=tmp_path), replace(FITTING, dit=single))
    assert recipe.dit.denoising_steps == single.denoising_steps


def test_start_spec_refuses_a_world_that_samples_otherwise(exported: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(exported, tmp_path / "other")
    settings = yaml.safe_load((folder / "inference.yaml").read_text())
    (folder / "inference.yaml").write_text(yaml.safe_dump({**settings, "context_noise": 20}))
    with pytest.raises(CheckpointError, match=r"its context_noise is 20.*trained with 0"):
        start_spec(LoadOptions(world=folder))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--from", "missing"], "missing"),
        (["--from", "EXPORTED", "--source", "drive"], "its mode is universal, but the episodes"),
        (["--start", "EXPORTED", "--source", "run"], "its mode is universal, but the episodes"),
        (["--world", "RELEASED", "--lora", "2"], "its frames are 48x32 at 12 a second, those of"),
        (["--from", "EXPORTED", "--lora", "99"], "lora is 99: the transformer of"),
        (["--lora", "2"], "lora: needs a world to start from; add --from WORLD"),
    ],
)
def test_train_command_checks_the_start_first(
    flags: list[str],
    message: str,
    exported: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_release(tmp_path / "released")
    folders = {"EXPORTED": str(exported), "RELEASED": str(tmp_path / "released")}
    named = [folders.get(flag, flag) for flag in flags]
    output = tmp_path / "run"
    assert main(["train", "--preset", "smoke", "--output", str(output), *named]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not output.exists()
