"""The whole training, stage by stage; every stage goes on where it was interrupted."""

from dataclasses import replace
from pathlib import Path

import torch

from glassworld.engine.runtime.device import pick_device
from glassworld.engine.runtime.memory import keep_freed_memory
from glassworld.files import writable_folder
from glassworld.training.data.collect import Collection, collect, contact_sheet, load
from glassworld.training.data.dataset import Play
from glassworld.training.data.latents import encode_play, normalise
from glassworld.training.eval.samples import Show
from glassworld.training.export import export_world, save_pictures
from glassworld.training.objectives.transformer import train_transformer
from glassworld.training.objectives.vae import VAE, train_decoder, train_vae
from glassworld.training.objectives.world_model import WorldModel
from glassworld.training.recipes import Folders, Preset
from glassworld.training.weights.warm_start import check_start, start_model, start_vae

TRAINING_SEED, HELD_OUT_SEED = 1, 1000
STAY_WEIGHT = 0.02
"""Of the latents' squared distance to those of the world that one goes on from."""


def collect_play(preset: Preset, folders: Folders) -> None:
    """Play the simulator, for training and to hold out; leave a contact sheet."""
    paths = collect(
        Collection(folders.play, TRAINING_SEED, preset.shards, preset.episodes, preset.frames)
    )
    collect(Collection(folders.held_out, HELD_OUT_SEED, 1, preset.episodes, preset.frames))
    contact_sheet(load(paths[0])).save(folders.root / "contact-sheet.png")


def prepare_vae(preset: Preset, folders: Folders, start: Path | None, device: torch.device) -> VAE:
    """Train the VAE and then its decoder alone, or read what was trained; on the CPU.

    Its latents have zero mean and unit variance. From the world `start` it goes on with long
    clips, and its latents stay near that world's: its transformer goes on from there too.
    """
    torch.manual_seed(preset.vae.seed)
    vae, trained = VAE(preset.vae.spec), folders.vae / "trained.pt"
    if trained.exists():
        vae.load_state_dict(torch.load(trained, weights_only=True))
        return vae.eval()
    play = Play(folders.play)
    _train_both(vae, play, preset, folders, start, device)
    train_decoder(play, preset.vae, folders.decoder, vae.to(device))
    _keep(vae.cpu(), trained)
    return vae.eval()


def _train_both(
    vae: VAE, play: Play, preset: Preset, folders: Folders, start: Path | None, device: torch.device
) -> None:
    """Encoder and decoder together, up to latents of zero mean and unit variance."""
    recipe, normalised = preset.vae, folders.vae / "normalised.pt"
    if normalised.exists():
        vae.load_state_dict(torch.load(normalised, weights_only=True))
        return
    if start is not None:
        start_vae(vae, start)
        recipe = replace(
            recipe, picture_steps=0, clip_steps=recipe.long_steps, stay_weight=STAY_WEIGHT
        )
    train_vae(play, recipe, folders.vae, vae.to(device)).cpu()
    normalise(vae, Play(folders.play, limit=1).frames)
    _keep(vae, normalised)


def _keep(vae: VAE, path: Path) -> None:
    draft = path.with_suffix(".part")
    torch.save(vae.state_dict(), draft)
    draft.replace(path)


def prepare_model(preset: Preset, start: Path | None) -> WorldModel:
    """The transformer and its image tower, untrained or from the world `start`."""
    torch.manual_seed(preset.dit.seed)
    model = WorldModel(preset.dit.spec, preset.dit.vision)
    model.dit.gradient_checkpointing = preset.dit.gradient_checkpointing
    if start is not None:
        start_model(model, start)
    return model


def train_world(
    preset: Preset, folders: Folders, start: Path | None = None, device: str = "cpu"
) -> None:
    """All stages, from play to an exported world; from an earlier world if `start` names one.

    Raises `InputError` before the first stage for a device, a world to start from or a folder
    that cannot be used.
    """
    target = pick_device(device)
    keep_freed_memory()
    if start is not None:
        check_start(start, preset)
    writable_folder(folders.root)
    collect_play(preset, folders)
    vae = prepare_vae(preset, folders, start, target)
    play = encode_play(vae.to(target), folders.play, folders.latents)
    show = Show(vae.cpu().decoder, play)
    model = prepare_model(preset, start).to(target)
    train_transformer(play, preset.dit, folders.transformer, model, show)
    export_world(vae, model, preset.dit, folders.world)
    save_pictures(folders.world / "pictures")
