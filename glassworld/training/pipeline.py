"""The training pipeline, stage by stage. Every stage resumes where it was interrupted."""

import io
from dataclasses import replace
from pathlib import Path

import torch

from glassworld.engine.checkpoint.options import LoadOptions
from glassworld.engine.networks import Networks
from glassworld.engine.runtime.device import pick_device
from glassworld.engine.runtime.memory import keep_freed_memory
from glassworld.files import (
    naming_full_disk,
    remove_drafts,
    replacing,
    writable_folder,
    write_file,
)
from glassworld.folder_lock import locked
from glassworld.training.data.collect import (
    CollectionConfig,
    collect_shards,
    contact_sheet,
    load_shard,
    save_start_images,
)
from glassworld.training.data.collect_recordings import (
    collect_recordings,
    save_recorded_start_images,
)
from glassworld.training.data.dataset import EpisodeDataset
from glassworld.training.data.latents import LatentEpisodes, encode_episodes
from glassworld.training.eval.samples import SampleWriter
from glassworld.training.export import export_world
from glassworld.training.objectives.transformer import train_transformer
from glassworld.training.objectives.vae import VAE, normalize_latents, train_decoder, train_vae
from glassworld.training.objectives.world_model import WorldModel
from glassworld.training.recipes import EPISODES, SHARDS, RunFolders, TrainingRecipe
from glassworld.training.run_settings import keep_settings, run_settings
from glassworld.training.sources.recordings import (
    RecordedVideo,
    read_recordings,
    recordings_mode,
)
from glassworld.training.sources.registry import (
    GYMNASIUM_PREFIX,
    absolute_source,
    open_source,
)
from glassworld.training.sources.source import WorldFormat
from glassworld.training.stage_budget import StageBudget
from glassworld.training.trainer import named_damage
from glassworld.training.weights.lora import add_lora, merge_lora
from glassworld.training.weights.warm_start import (
    check_lora_rank,
    check_start_frames,
    check_start_mode,
    load_start,
    start_spec,
    warm_start_model,
    warm_start_vae,
)

TRAINING_SEED, HELD_OUT_SEED = 1, 1000
ANCHOR_WEIGHT = 0.02
"""Of the squared distance of the latents to those of the world that the training starts from."""


def train_world(
    recipe: TrainingRecipe,
    folders: RunFolders,
    start: LoadOptions | None = None,
    device: str = "cpu",
    minutes: float | None = None,
) -> None:
    """Run all stages, from collecting episodes to the exported world.

    Parameters
    ----------
    recipe
        What to train and how long.
    folders
        Folders of the run.
    start
        Names a world whose weights to start from.
    device
        `cpu`, `cuda` or `cuda:N`.
    minutes
        Length of the whole training, over all interruptions. The lengths of the recipe then only
        say which share of a stage each part takes. None: the recipe's lengths.

    Raises
    ------
    InputError
        The source, the device, the minutes, the world to start from or the folder cannot be used,
        or another training writes there. It is raised before the first stage. A disk that is full
        raises it later.
    """
    torch_device = pick_device(device)
    keep_freed_memory()
    budget = StageBudget(folders.root / "clock.json", minutes)
    recipe, videos = _choose_data(recipe, start)
    if minutes is not None:
        recipe = replace(recipe, shards=SHARDS, episodes=EPISODES)
    networks = None
    if start is not None:
        recipe, networks = load_start(start, recipe)
    writable_folder(folders.root)
    with naming_full_disk(folders.root), locked(folders.root, "training"):
        keep_settings(folders, run_settings(recipe, start, networks))
        remove_drafts(folders.root)
        collect_episodes(recipe, folders, budget, videos)
        _train_networks(recipe, folders, networks, torch_device, budget)


def _train_networks(
    recipe: TrainingRecipe,
    folders: RunFolders,
    start: Networks | None,
    device: torch.device,
    budget: StageBudget,
) -> None:
    """Run the stages after the collection, from the VAE to the exported world."""
    vae = prepare_vae(recipe, folders, start, device, budget)
    with budget.stage("latents"):
        episodes = encode_episodes(
            vae.to(device).encoder,
            folders.episodes,
            folders.latents,
            recipe.dit.format.frames_per_block,
        )
    model = prepare_model(recipe, episodes, start).to(device)
    _train_and_export(recipe, folders, vae.cpu(), model, episodes, budget)


def _train_and_export(
    recipe: TrainingRecipe,
    folders: RunFolders,
    vae: VAE,
    model: WorldModel,
    episodes: LatentEpisodes,
    budget: StageBudget,
) -> None:
    """Train the transformer; write the world, its start images and the last samples.

    Updates of LoRA are merged into the weights before the world is written.
    """
    preview = SampleWriter(
        vae.decoder, episodes, folders.root, frame_rate=recipe.dit.format.frame_rate
    )
    with budget.stage("transformer") as seconds:
        train_transformer(episodes, recipe.dit, folders.transformer, model, preview, seconds)
    merge_lora(model.dit)
    source = "" if recipe.recordings is not None else absolute_source(recipe.source)
    export_world(vae, model, recipe.dit, folders.world, source)
    if recipe.recordings is not None:
        save_recorded_start_images(folders.episodes, folders.world / "pictures")
    else:
        save_start_images(recipe.source, folders.world / "pictures")
    preview(model, recipe.dit.sampler, folders.transformer)


def _choose_data(
    recipe: TrainingRecipe, start: LoadOptions | None
) -> tuple[TrainingRecipe, list[RecordedVideo]]:
    """Open what to learn from; return the recipe for it and the recordings that fit, if any.

    Recordings and Gymnasium environments are brought to the blocks of the world to start from, and
    recordings to its frames. The other sources have their own.
    """
    folder = recipe.recordings
    if folder is None:
        with open_source(recipe.source) as source:
            format, rests = source.format, source.rests
    else:
        format, rests = WorldFormat(recordings_mode(folder, recipe.mode)), False
    if start is not None:
        spec = start_spec(start)
        check_lora_rank(start, spec, recipe.lora)
        check_start_mode(start, spec, format.mode)
        if folder is not None:
            size = (spec.height, spec.width, spec.frames_per_block, spec.frame_rate)
            format = WorldFormat(format.mode, *size)
        elif recipe.source.startswith(GYMNASIUM_PREFIX):
            format = replace(format, frames_per_block=spec.frames_per_block)
        check_start_frames(start, spec, format)
    recipe = recipe.fitted(format, rests)
    return recipe, [] if folder is None else read_recordings(folder, format, recipe.frames)


def collect_episodes(
    recipe: TrainingRecipe, folders: RunFolders, budget: StageBudget, videos: list[RecordedVideo]
) -> None:
    """Collect training and held-out episodes, from videos if there are; draw a contact sheet."""
    config = CollectionConfig(
        folders.episodes,
        TRAINING_SEED,
        recipe.shards,
        recipe.episodes,
        recipe.frames,
        recipe.source,
    )
    held_out = replace(config, folder=folders.held_out, seed=HELD_OUT_SEED, shards=1)
    with budget.stage("episodes") as seconds:
        left = None if seconds is None else seconds - budget.spent.get("episodes", 0.0)
        if videos:
            collect_recordings(videos, recipe.dit.format, config, held_out.folder, left)
        else:
            collect_shards(config, torch.get_num_threads(), left)
            collect_shards(held_out)
    first = min(folders.episodes.glob("shard-*.safetensors"))
    with replacing(folders.root / "contact-sheet.png") as path:
        contact_sheet(load_shard(first)).save(path)


def prepare_vae(
    recipe: TrainingRecipe,
    folders: RunFolders,
    start: Networks | None,
    device: torch.device,
    budget: StageBudget,
) -> VAE:
    """Train the VAE and then its decoder alone, or load what was trained before.

    Its latents have zero mean and unit variance. A VAE from the world `start` is trained on long
    clips alone, and its latents stay near that world's, because its transformer is reused. With
    LoRA it stays as it is.

    Returns
    -------
    The VAE, on the CPU.
    """
    torch.manual_seed(recipe.vae.seed)
    vae, trained = VAE(recipe.vae.spec), folders.vae / "trained.pt"
    if trained.exists():
        _load_weights(vae, trained)
        return vae.eval()
    if recipe.lora and start is not None:
        warm_start_vae(vae, start)
        return vae.eval()
    dataset = EpisodeDataset(folders.episodes)
    with budget.stage("VAE") as seconds:
        _train_both(vae, dataset, recipe, folders, start, device, seconds)
    with budget.stage("decoder") as seconds:
        train_decoder(dataset, recipe.vae, folders.decoder, vae.to(device), seconds)
    _save_weights(vae.cpu(), trained)
    return vae.eval()


def _train_both(
    vae: VAE,
    dataset: EpisodeDataset,
    recipe: TrainingRecipe,
    folders: RunFolders,
    start: Networks | None,
    device: torch.device,
    seconds: float | None,
) -> None:
    """Train encoder and decoder together and normalize the latents."""
    vae_recipe, normalized = recipe.vae, folders.vae / "normalised.pt"
    if normalized.exists():
        _load_weights(vae, normalized)
        return
    if start is not None:
        warm_start_vae(vae, start)
        vae_recipe = replace(
            vae_recipe,
            image_steps=0,
            clip_steps=vae_recipe.long_steps,
            anchor_weight=ANCHOR_WEIGHT,
        )
    train_vae(dataset, vae_recipe, folders.vae, vae.to(device), seconds).cpu()
    normalize_latents(vae, dataset.frames)
    _save_weights(vae, normalized)


def _save_weights(vae: VAE, path: Path) -> None:
    content = io.BytesIO()
    torch.save(vae.state_dict(), content)
    write_file(path, content.getvalue())


def _load_weights(vae: VAE, path: Path) -> None:
    """Load what `_save_weights` wrote; raise `CheckpointError` if it does not fit."""
    with named_damage(path):
        vae.load_state_dict(torch.load(path, weights_only=True))


def prepare_model(
    recipe: TrainingRecipe, episodes: LatentEpisodes, start: Networks | None
) -> WorldModel:
    """Create the transformer and its image tower, untrained or from the world `start`."""
    torch.manual_seed(recipe.dit.seed)
    model = WorldModel(
        recipe.dit.spec,
        recipe.dit.vision,
        recipe.dit.format.frames_per_block,
        episodes.pose.shape[-1],
    )
    model.dit.gradient_checkpointing = recipe.dit.gradient_checkpointing
    if start is not None:
        warm_start_model(model, start)
    if recipe.lora:
        model.vision.requires_grad_(False)
        add_lora(model.dit, recipe.lora)
    return model
