"""A training starts from an exported world of the same size, or of a smaller transformer."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

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
from glassworld.training.weights.warm_start import load_start, warm_start_model, warm_start_vae
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
    return load_start(LoadOptions(world=exported), FITTING)


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
    start = load_start(LoadOptions(world=exported), replace(FITTING, dit=larger))
    small, grown = small_model(), WorldModel(larger.spec, larger.vision)
    warm_start_model(grown, start)
    torch.testing.assert_close(predicted_flow(grown), predicted_flow(small), atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize(
    ("recipe", "part"),
    [
        (replace(FITTING, vae=replace(SMALL_VAE, width=8)), "VAE"),
        (replace(FITTING, vae=replace(SMALL_VAE, residual_blocks=2)), "VAE"),
        (replace(FITTING, dit=DiTRecipe()), "transformer"),
    ],
)
def test_load_start_refuses_networks_of_another_size(
    exported: Path, recipe: TrainingRecipe, part: str
) -> None:
    with pytest.raises(CheckpointError, match=f"its {part} has another size"):
        load_start(LoadOptions(world=exported), recipe)


@pytest.mark.parametrize(
    ("flag", "folder", "message"),
    [("--world", "missing", "missing"), ("--start", None, "another size")],
)
def test_train_command_checks_the_start_first(
    exported: Path,
    tmp_path: Path,
    flag: str,
    folder: str | None,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    world = exported if folder is None else tmp_path / folder
    flags = ["--preset", "smoke", "--output", str(tmp_path / "run")]
    assert main(["train", *flags, flag, str(world)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()
