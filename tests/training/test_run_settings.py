"""The settings of a run: kept in its folder, and compared before anything is reused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from glassworld.engine.checkpoint.options import LoadOptions
from glassworld.errors import InputError
from glassworld.training.recipes import RunFolders, TrainingRecipe, preset_recipe
from glassworld.training.run_settings import SETTINGS_FILE, keep_settings, run_settings
from tests.support import tiny

SMOKE = replace(preset_recipe("smoke"), source="drive")


def keep(root: Path, recipe: TrainingRecipe, start: LoadOptions | None = None) -> None:
    keep_settings(RunFolders(root), run_settings(recipe, start, None))


def collect(root: Path) -> None:
    """Leave a shard, as a collection does."""
    episodes = RunFolders(root).episodes
    episodes.mkdir(parents=True)
    (episodes / "shard-00000.safetensors").touch()


def test_keep_settings_of_a_run_that_collected_nothing_takes_the_new_ones(tmp_path: Path) -> None:
    keep(tmp_path, replace(SMOKE, source="run"))
    RunFolders(tmp_path).episodes.mkdir(parents=True)  # and the first episode failed
    keep(tmp_path, SMOKE)
    assert json.loads((tmp_path / SETTINGS_FILE).read_bytes())["source"] == "drive"


@pytest.mark.parametrize(
    ("recipe", "start", "difference"),
    [
        (replace(SMOKE, preset="laptop"), None, "--preset smoke, not laptop"),
        (replace(SMOKE, source="run"), None, "--source drive, not run"),
        (replace(SMOKE, recordings=Path("videos")), None, "--source drive, not recordings"),
        (SMOKE, LoadOptions(world="drive"), "--from none, not drive"),
        (replace(SMOKE, lora=4), None, "--lora 0, not 4"),
    ],
)
def test_keep_settings_of_another_training_names_what_differs(
    recipe: TrainingRecipe, start: LoadOptions | None, difference: str, tmp_path: Path
) -> None:
    keep(tmp_path, SMOKE)
    collect(tmp_path)
    keep(tmp_path, SMOKE)
    with pytest.raises(InputError) as refusal:
        keep(tmp_path, recipe, start)
    assert str(refusal.value) == (
        f"{tmp_path}: holds a training with {difference}; repeat its flags, or choose "
        "another --output"
    )


def test_keep_settings_notices_another_mapping_but_not_where_it_is(tmp_path: Path) -> None:
    folders = [tmp_path / "here", tmp_path / "there"]
    for folder in folders:
        folder.mkdir()
        (folder / "keys.yaml").write_text("mode: gta_drive")
    here, there = (
        replace(SMOKE, source=f"gymnasium:Dot-v0@{folder / 'keys.yaml'}") for folder in folders
    )
    keep(tmp_path, here)
    collect(tmp_path)
    keep(tmp_path, there)
    (folders[1] / "keys.yaml").write_text("mode: universal")
    with pytest.raises(InputError, match=r"--mapping keys.yaml \(\w{8}\), not keys.yaml \(\w{8}\)"):
        keep(tmp_path, there)


def test_run_settings_name_a_start_folder_by_its_last_parts(tmp_path: Path) -> None:
    world = tmp_path / "runs" / "mine" / "world"
    world.mkdir(parents=True)
    assert run_settings(SMOKE, LoadOptions(world=world), None)["from"] == "mine/world"
    released = LoadOptions(world="Skywork/Matrix-Game-2.0", variant="gta_drive")
    assert run_settings(SMOKE, released, None)["from"] == "Skywork/Matrix-Game-2.0 gta_drive"


def test_keep_settings_notices_other_weights_to_start_from(tmp_path: Path) -> None:
    start, networks = LoadOptions(world="mine/world"), tiny.world().networks
    folders = RunFolders(tmp_path)
    keep_settings(folders, run_settings(SMOKE, start, networks))
    collect(tmp_path)
    settings = run_settings(SMOKE, start, tiny.world().networks)
    keep_settings(folders, settings)
    with torch.no_grad():
        networks.dit.patch_embedding.weight.add_(0.01)
    with pytest.raises(InputError, match="a training from mine/world, whose weights have changed"):
        keep_settings(folders, run_settings(SMOKE, start, networks))

    # Runs from before the weights were noted go on.
    del settings["weights"]
    (tmp_path / SETTINGS_FILE).write_text(json.dumps(settings))
    keep_settings(folders, run_settings(SMOKE, start, networks))


def test_keep_settings_leaves_a_run_without_settings_alone(tmp_path: Path) -> None:
    collect(tmp_path)
    keep(tmp_path, SMOKE)
    assert not (tmp_path / SETTINGS_FILE).exists()


@pytest.mark.parametrize("content", ["", "[]", "{}", "{1"])
def test_keep_settings_that_are_damaged_say_how_to_go_on(content: str, tmp_path: Path) -> None:
    (tmp_path / SETTINGS_FILE).write_text(content)
    collect(tmp_path)
    with pytest.raises(InputError, match=r"training\.json: damaged; delete it to go on"):
        keep(tmp_path, SMOKE)
