"""A training starts from an exported world of the same size, or of a smaller transformer."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from glassworld.cli import main
from glassworld.errors import CheckpointError
from glassworld.training.export import export_world
from glassworld.training.objectives.transformer import DiTRecipe
from glassworld.training.objectives.vae import VAE, VAERecipe
from glassworld.training.objectives.world_model import WorldModel
from glassworld.training.recipes import preset_recipe
from glassworld.training.weights.warm_start import (
    check_warm_start,
    warm_start_model,
    warm_start_vae,
)
from tests.support.small import SMALL, SMALL_VAE, small_model, small_vae

FITTING = replace(preset_recipe("smoke"), vae=SMALL_VAE, dit=SMALL)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a world with the weights of `small_vae` and `small_model`."""
    folder = tmp_path_factory.mktemp("world")
    export_world(small_vae(), small_model(), SMALL, folder)
    return folder


def test_warm_start_vae_copies_encoder_and_decoder(exported: Path) -> None:
    vae, copy = small_vae(), VAE(SMALL_VAE.spec)
    warm_start_vae(copy, exported)
    pixels = torch.rand(1, 3, 5, 32, 32) * 2 - 1
    with torch.no_grad():
        latents = vae.encoder(pixels)
        torch.testing.assert_close(copy.encoder(pixels), latents, atol=0.05, rtol=0)
        rebuilt = vae.decoder(latents)
        torch.testing.assert_close(copy.decoder(latents), rebuilt, atol=0.05, rtol=0)


def test_warm_start_model_copies_transformer_and_image_tower(exported: Path) -> None:
    model, copy = small_model(), WorldModel(SMALL.spec, SMALL.vision)
    warm_start_model(copy, exported)
    for part in ("dit", "vision"):
        copied = getattr(copy, part).state_dict()
        for name, weight in getattr(model, part).state_dict().items():
            torch.testing.assert_close(copied[name], weight, atol=1e-2, rtol=1e-2)


def test_warm_start_model_grows_a_smaller_transformer(exported: Path) -> None:
    larger = replace(SMALL, layers=5, ffn_dim=80)
    model, grown = small_model(), WorldModel(larger.spec, larger.vision)
    warm_start_model(grown, exported)
    old, new = model.dit.blocks[0].state_dict(), grown.dit.blocks[0].state_dict()
    for name, weight in old.items():
        part = new[name][tuple(slice(size) for size in weight.shape)]
        torch.testing.assert_close(part, weight, atol=1e-2, rtol=1e-2)


def test_warm_start_refuses_networks_of_another_size(exported: Path) -> None:
    with pytest.raises(CheckpointError, match="another size"):
        warm_start_vae(VAE(VAERecipe(width=8).spec), exported)
    recipe = DiTRecipe()
    with pytest.raises(CheckpointError, match="another size"):
        warm_start_model(WorldModel(recipe.spec, recipe.vision), exported)


def test_check_warm_start_accepts_a_world_of_the_same_size(exported: Path) -> None:
    check_warm_start(exported, FITTING)


def test_check_warm_start_refuses_a_deeper_vae(tmp_path: Path) -> None:
    export_world(small_vae(residual_blocks=2), small_model(), SMALL, tmp_path)
    with pytest.raises(CheckpointError, match="its VAE has another size"):
        check_warm_start(tmp_path, FITTING)


@pytest.mark.parametrize(
    ("start", "message"),
    [("missing", "missing/inference.yaml: no such configuration"), (None, "another size")],
)
def test_train_command_checks_the_start_first(
    exported: Path,
    tmp_path: Path,
    start: str | None,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    world = exported if start is None else tmp_path / start
    flags = ["--preset", "smoke", "--output", str(tmp_path / "run")]
    assert main(["train", *flags, "--start", str(world)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()
