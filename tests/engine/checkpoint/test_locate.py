"""A world by its name, folder, repository or paths; and which variant it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import glassworld
from glassworld.engine.checkpoint import locate
from glassworld.engine.checkpoint.load import load_world
from glassworld.engine.checkpoint.locate import WORLDS, embedded_worlds, locate_world
from glassworld.engine.checkpoint.options import LoadOptions
from glassworld.errors import CheckpointError, InputError
from glassworld.training.recipes import RunFolders
from tests.support import tiny
from tests.support.laid_out import CONFIG, DIT_FILE, INFERENCE, lay_out

GTA_FILE = "gta_distilled_model/gta_keyboard2dim.safetensors"
FOUNDATION_FILE = "base_model/diffusion_pytorch_model.safetensors"
KEYBOARDS = tuple(f"model.blocks.{layer}.action_model.keyboard_embed.0.weight" for layer in (0, 1))


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """Write a released folder with its transformer's sizes and without an inference YAML."""
    folder = lay_out(tmp_path)
    (folder / "inference.yaml").unlink()
    return folder


def with_keys(folder: Path, keys: int, file: str) -> None:
    """Write the transformer of the release for so many keys."""
    tensors = load_file(folder / DIT_FILE)
    for name in KEYBOARDS:
        tensors[name] = torch.ones(tensors[name].shape[0], keys)
    (folder / file).parent.mkdir(exist_ok=True)
    save_file(tensors, folder / file)
    config = {**CONFIG, "action_config": {**CONFIG["action_config"], "keyboard_dim_in": keys}}
    (folder / file).with_name("config.json").write_text(json.dumps(config))


def located(**options: Any) -> locate.LocatedWorld:
    return locate_world(LoadOptions(**options))


def transformer_file(world: locate.LocatedWorld) -> Path | None:
    assert world.files is not None
    return world.files.transformer


def test_embedded_worlds_are_the_folders_of_the_package() -> None:
    assert embedded_worlds() == sorted(
        path.name for path in WORLDS.iterdir() if (path / "transformer.safetensors").is_file()
    )
    assert "maze" in embedded_worlds()


def test_an_embedded_world_is_the_same_by_default_and_by_name() -> None:
    assert located() == located(world="drive") == located(world=str(WORLDS / "drive"))
    assert glassworld.load_world("drive", device="cpu").name == "drive"


def test_an_unknown_name_lists_the_embedded_worlds_and_says_what_else_can_be_named() -> None:
    with pytest.raises(InputError) as caught:
        located(world="labyrinth")
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        "'labyrinth'",
        "Embedded worlds: drive, maze, run",
        "folder",
        "Skywork/Matrix-Game-2.0",
    ):
        assert part in message


def test_a_file_is_no_world(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("")
    with pytest.raises(InputError, match=r"a\.yaml: is a file; name the folder of a world"):
        located(world=tmp_path / "a.yaml")


def test_an_empty_folder_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no world in it: neither inference\.yaml nor"):
        located(world=tmp_path)


def test_the_folder_of_a_training_names_the_world_in_it(tmp_path: Path) -> None:
    run = RunFolders(tmp_path / "run")
    tiny.world().save(run.world)
    with pytest.raises(CheckpointError) as caught:
        located(world=run.root)
    assert str(caught.value) == f"{run.root}: no world in it, but {run.world} is one; name that"
    assert located(world=run.world).spec.mode == tiny.SPEC.mode


def test_world_and_paths_together_are_an_error(release: Path) -> None:
    with pytest.raises(InputError, match="config_path: world 'maze' is named too"):
        located(world="maze", config_path=release / "inference.yaml")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "doom"}, "variant 'doom': must be one of universal, gta_drive, templerun"),
        ({"variant": "gta_drive"}, "variant 'gta_drive': name the folder or hub repository"),
        ({"world": "maze", "variant": "templerun"}, r"inference\.yaml says mode 'universal'"),
        ({"checkpoint_path": "a.safetensors"}, "give pretrained_model_path too"),
    ],
)
def test_a_variant_that_cannot_be_is_an_error(options: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        located(**options)


def test_a_folder_without_yaml_is_the_variant_that_alone_fits_its_weights(release: Path) -> None:
    with_keys(release, 2, GTA_FILE)
    (release / DIT_FILE).unlink()
    world = load_world(release, device="cpu")
    assert world.spec.mode == "gta_drive"
    assert world.spec.dit.window == 6  # the folder's config.json goes before the variant's
    assert (world.spec.height, world.spec.width) == (352, 640)


def test_a_folder_without_yaml_is_universal_where_several_variants_fit(release: Path) -> None:
    found = located(world=release)
    assert found.spec.mode == "universal"
    assert found.spec.denoising_steps == (1000, 666, 333)
    assert (
        load_world(pretrained_model_path=release, device="cpu").spec
        == load_world(release, variant="universal", device="cpu").spec
    )


def test_a_variant_takes_its_released_file(release: Path) -> None:
    with_keys(release, 2, GTA_FILE)
    assert transformer_file(located(world=release)) == release / DIT_FILE
    drive = located(world=release, variant="gta_drive")
    assert transformer_file(drive) == release / GTA_FILE
    assert drive.spec.mode == "gta_drive"


def test_foundation_is_universal_with_its_own_steps(release: Path) -> None:
    with_keys(release, 4, FOUNDATION_FILE)
    found = located(world=release, variant="foundation")
    assert transformer_file(found) == release / FOUNDATION_FILE
    assert (found.spec.mode, len(found.spec.denoising_steps)) == ("universal", 50)


def test_a_variant_that_does_not_fit_the_weights_names_the_one_that_does(release: Path) -> None:
    with_keys(release, 2, DIT_FILE)
    with pytest.raises(
        CheckpointError, match=r"no universal transformer; .* it would fit gta_drive"
    ):
        located(world=release, variant="universal")


def test_weights_of_no_variant_are_an_error(release: Path) -> None:
    with_keys(release, 5, DIT_FILE)
    with pytest.raises(CheckpointError, match=r"fits no variant; with 5 keys .* no released"):
        located(world=release)


def test_a_missing_variant_is_named(release: Path) -> None:
    with pytest.raises(CheckpointError, match=GTA_FILE):
        located(world=release, variant="gta_drive")


def test_paths_of_the_reference_still_name_a_world(release: Path) -> None:
    (release / "own.yaml").write_text(yaml.safe_dump(INFERENCE))
    paths = {"config_path": release / "own.yaml", "pretrained_model_path": release}
    by_path = located(**paths)
    assert transformer_file(by_path) == release / DIT_FILE
    other = located(**paths, checkpoint_path=release / "other.safetensors")
    assert transformer_file(other) == release / "other.safetensors"


def test_untrained_weights_need_no_world() -> None:
    assert located(random_weights=True).spec.mode == "universal"
    assert located(random_weights=True, variant="templerun").spec.mode == "templerun"
    assert located(random_weights=True, world="maze").spec.dit.dim == 192


class Hub:
    """A hub with one repository, which is a folder of this machine."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.asked = folder, list[str]()
        monkeypatch.setattr(locate, "list_files", self.list_files)
        monkeypatch.setattr(locate, "download", self.download)

    def list_files(self, name: str) -> list[str]:
        paths = self.folder.rglob("*")
        return [str(path.relative_to(self.folder)) for path in paths if path.is_file()]

    def download(self, name: str, files: list[str]) -> Path:
        self.asked = files
        return self.folder


def test_a_repository_is_downloaded_for_its_variant_alone(
    release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_keys(release, 2, GTA_FILE)
    hub = Hub(release, monkeypatch)
    drive = located(world="Skywork/Matrix-Game-2.0", variant="gta_drive")
    assert (drive.name, drive.spec.mode) == ("Matrix-Game-2.0", "gta_drive")
    assert GTA_FILE in hub.asked
    assert DIT_FILE not in hub.asked
    assert "Wan2.1_VAE.pth" in hub.asked
    located(world="Skywork/Matrix-Game-2.0")
    assert DIT_FILE in hub.asked
    assert GTA_FILE not in hub.asked


def test_a_repository_is_downloaded_for_the_mode_of_the_configuration(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_keys(release, 2, GTA_FILE)
    settings = tmp_path / "drive.yaml"
    settings.write_text(yaml.safe_dump({**INFERENCE, "mode": "gta_drive"}))
    hub = Hub(release, monkeypatch)
    located(config_path=settings, pretrained_model_path="Skywork/Matrix-Game-2.0")
    assert GTA_FILE in hub.asked
    assert DIT_FILE not in hub.asked


def test_a_repository_without_a_world_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "README.md").write_text("")
    Hub(tmp_path, monkeypatch)
    with pytest.raises(CheckpointError, match="someone/something: no VAE or image tower"):
        located(world="someone/something")
