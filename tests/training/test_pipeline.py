"""The whole training: it makes a world that plays, and repeats no finished stage."""

import errno
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from glassworld.engine.checkpoint.load import load_world
from glassworld.engine.checkpoint.locate import locate_world
from glassworld.engine.checkpoint.options import LoadOptions
from glassworld.errors import CheckpointError, InputError
from glassworld.files import DiskFullError
from glassworld.folder_lock import LOCK, locked
from glassworld.training.objectives.adversarial import DiscriminatorRecipe
from glassworld.training.objectives.history_augmentation import HistoryMix
from glassworld.training.recipes import PRESETS, RunFolders, TrainingRecipe
from glassworld.training.stage_budget import StageBudget
from tests.support.disk import small_disk
from tests.support.recorded import write_recording
from tests.support.release import write_release
from tests.support.small import SMALL, SMALL_VAE, small_vae
from tests.support.square_env import MAPPING, register

pytest.importorskip("vizdoom")
pytest.importorskip("matplotlib")

from glassworld.training import pipeline
from glassworld.training.pipeline import _save_weights, prepare_vae, train_world

TINY = TrainingRecipe(
    shards=1,
    episodes=2,
    frames=73,  # six blocks: as many as the samples show
    vae=replace(
        SMALL_VAE,
        image_steps=4,
        image_batch_size=2,
        clip_steps=2,
        clip_batch_size=1,
        long_steps=1,
        long_batch_size=1,
        decoder_steps=2,
    ),
    dit=replace(
        SMALL,
        steps=3,
        batch_size=2,
        first_blocks=2,
        history_mix=HistoryMix(from_start=1.0, redrawn=0.5, rollout=0, at_rest=0),
        discriminator=DiscriminatorRecipe(steps=2, every=1, warmup_steps=1, width=16),
    ),
)


def _play(folders: RunFolders) -> None:
    world = load_world(folders.world)
    start_image = next((folders.world / "pictures").glob("*.png"))
    assert world.generate(start_image, num_latent_frames=6).frames.shape == (21, 64, 96, 3)


@pytest.mark.slow
def test_train_world_makes_a_world_and_repeats_no_finished_stage(tmp_path: Path) -> None:
    folders = RunFolders(tmp_path)
    train_world(TINY, folders)
    _play(folders)
    assert (folders.transformer / "curve.png").exists()
    with Image.open(folders.transformer / "samples.png") as samples:
        assert samples.size == (12 * 96, 4 * 2 * 64)

    # The decoder learned on after the latents were normalized; the encoder stayed as it was.
    normalized = torch.load(folders.vae / "normalised.pt", weights_only=True)
    decoder = torch.load(folders.decoder / "state.pt", weights_only=True)["average"]
    name = "decoder.middle.residual1.conv1.weight"
    assert not torch.equal(decoder[name], normalized[f"decoder.{name}"])
    name = "stages.0.conv1.weight"
    world = load_world(folders.world)
    encoder = world.networks.encoder.encoder.state_dict()
    assert torch.equal(encoder[name], normalized[f"encoder.encoder.{name}"].half().float())

    # The discriminator saves at its end too, however few its steps were.
    discriminator = torch.load(folders.transformer / "critic" / "state.pt", weights_only=True)
    assert discriminator["step"] == 2

    page = (tmp_path / "samples.html").read_text()
    assert page.count("data:image/") == 6  # animation, strip, three curves, contact sheet
    with Image.open(tmp_path / "samples.webp") as animation:
        assert animation.size == (4 * 96, 2 * 64)
        animation.seek(68)

    encoded = (folders.latents / "shard-00000.safetensors").stat().st_mtime_ns
    killed = folders.transformer / ".state.0123abcd.pt"
    killed.write_bytes(b"half")
    train_world(TINY, folders)
    assert (folders.latents / "shard-00000.safetensors").stat().st_mtime_ns == encoded
    assert not killed.exists()


def test_second_training_into_a_folder_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    draft = tmp_path / ".state.pt.0123abcd"  # which the first training is about to complete
    draft.touch()
    refused = "another training writes there; wait until it ends, or choose another output folder"
    with locked(tmp_path, "training"), pytest.raises(InputError, match=refused):
        train_world(TINY, RunFolders(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {LOCK, draft.name}


def test_train_world_on_a_full_disk_names_the_file(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 300) as disk:
        folders = RunFolders(disk / "run")
        shard = folders.episodes / "shard-00000.safetensors"
        with pytest.raises(DiskFullError, match=f"^{shard}: cannot be written: the disk is full"):
            train_world(replace(TINY, source="drive"), folders)
        assert not list(folders.episodes.iterdir())


def test_train_world_on_a_full_disk_names_the_folder_for_files_of_libraries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pipeline, "collect_episodes", fail)
    with pytest.raises(DiskFullError, match=f"^{tmp_path}: cannot be written: the disk is full"):
        train_world(replace(TINY, source="drive"), RunFolders(tmp_path))


def test_prepare_vae_of_another_size_names_the_file(tmp_path: Path) -> None:
    folders = RunFolders(tmp_path)
    folders.vae.mkdir()
    _save_weights(small_vae(residual_blocks=2), folders.vae / "trained.pt")
    budget = StageBudget(tmp_path / "clock.json", None)
    with pytest.raises(CheckpointError, match=r"trained\.pt: damaged, or of another model; move"):
        prepare_vae(TINY, folders, None, torch.device("cpu"), budget)


@pytest.mark.slow
def test_train_world_with_minutes_ends_with_a_world_of_the_source(tmp_path: Path) -> None:
    folders = RunFolders(tmp_path)
    recipe = replace(TINY, source="drive")
    train_world(recipe, folders, minutes=0.02)
    world = load_world(folders.world)
    assert (world.spec.mode, world.spec.frames_per_block) == ("gta_drive", 1)
    start_image = next((folders.world / "pictures").glob("drive-*.png"))
    assert world.generate(start_image, num_latent_frames=3).frames.shape == (9, 64, 96, 3)
    clock = json.loads((tmp_path / "clock.json").read_text())
    assert list(clock) == ["episodes", "VAE", "decoder", "latents", "transformer"]


def _write_mapping(folder: Path) -> str:
    """Return the name of a source that plays the square by the keys of a mode."""
    register()
    mapping = folder / "keys.yaml"
    mapping.write_text(MAPPING)
    return f"gymnasium:glassworld-tests/Square-v0@{mapping}"


@pytest.mark.slow
def test_train_world_from_a_gymnasium_environment(tmp_path: Path) -> None:
    folders = RunFolders(tmp_path / "run")
    source = _write_mapping(tmp_path)
    train_world(replace(TINY, source=source), folders)
    _play(folders)
    assert locate_world(LoadOptions(world=folders.world)).source == source


@pytest.mark.slow
def test_train_world_from_recordings_learns_their_mode(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_recording(tmp_path, name, 100)
    folders = RunFolders(tmp_path / "run")
    train_world(replace(TINY, recordings=tmp_path), folders)
    _play(folders)
    assert locate_world(LoadOptions(world=folders.world)).source == ""
    assert load_world(folders.world).spec.mode == "gta_drive"


@pytest.mark.slow
def test_train_world_with_lora_changes_the_transformer_alone(tmp_path: Path) -> None:
    write_release(tmp_path / "released")
    for name in ("a", "b"):
        write_recording(tmp_path, name, 100)
        (tmp_path / f"{name}.csv").write_text("w,s,a,d\n" + "1,0,0,1\n" * 100)
    folders, start = RunFolders(tmp_path / "run"), LoadOptions(world=tmp_path / "released")
    recipe = replace(TINY, recordings=tmp_path, mode="universal", lora=2)
    recipe = replace(recipe, dit=replace(recipe.dit, rate=0.05, ema_decay=0.0))
    train_world(recipe, folders, start)
    trained, released = load_world(folders.world), load_world(tmp_path / "released")
    assert trained.spec == replace(released.spec, seed=trained.spec.seed)
    ours, theirs = trained.networks.dit.state_dict(), released.networks.dit.state_dict()
    assert list(ours) == list(theirs)
    ranks = [
        int(torch.linalg.matrix_rank(ours[name] - theirs[name], atol=0.01))
        for name in ours
        if ours[name].dim() == 2
    ]
    assert max(ranks) == 2
    image = next((folders.world / "pictures").glob("*.png"))
    assert trained.generate(image, num_latent_frames=6).frames.shape == (21, 32, 48, 3)
    pixels = torch.rand(1, 3, 5, 32, 48) * 2 - 1
    difference = trained.networks.encoder(pixels) - released.networks.encoder(pixels)
    assert difference.abs().max() < 0.05  # half precision


@pytest.mark.slow
def test_train_world_with_the_smoke_preset_makes_a_world(tmp_path: Path) -> None:
    folders = RunFolders(tmp_path)
    train_world(PRESETS["smoke"], folders)
    _play(folders)
