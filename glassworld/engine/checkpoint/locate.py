"""Find a world's settings and files, and which variant it is, before its weights are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from glassworld.engine.checkpoint.config import (
    InferenceConfig,
    fit_advice,
    fitting_variants,
    outline_spec,
    read_config,
    read_model_config,
    variant_config,
)
from glassworld.engine.checkpoint.hub import download, is_hub_name, list_files
from glassworld.engine.checkpoint.options import LoadOptions
from glassworld.engine.checkpoint.tensor_files import INDEX, SAFETENSORS, Shapes, read_shapes
from glassworld.engine.checkpoint.third_party_names import dit_names, standard_names
from glassworld.engine.variants.registry import DEFAULT_VARIANT, VARIANTS
from glassworld.errors import CheckpointError, InputError
from glassworld.specs import WorldSpec

WORLDS = Path(__file__).resolve().parents[2] / "worlds"
DEFAULT_WORLD = "drive"
EMBEDDED = WORLDS / DEFAULT_WORLD

INFERENCE_FILE, CONFIG_FILE = "inference.yaml", "config/config.json"
TRANSFORMER_FILE, VAE_FILE, VISION_FILE = (
    "transformer.safetensors",
    "vae.safetensors",
    "vision.safetensors",
)
"""What a world's own folder holds, as `World.save` writes it."""

UNFINISHED_FILE = ".unfinished-save"
"""In a world's folder while the files of another world replace its own."""

TRAINED_WORLD = "world"
"""Where the folder of a training has the world that it wrote."""

DIFFUSERS_TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"
VAE_FILES = (
    VAE_FILE,
    "Wan2.1_VAE.pth",
    "Wan2.1_VAE.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
)
VISION_FILES = (
    VISION_FILE,
    "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth",
    "models_clip_open-clip-xlm-roberta-large-vit-huge-14.safetensors",
    "image_encoder/model.safetensors",
)
MODEL_CONFIGS = (CONFIG_FILE, "config.json")
"""Where a folder without an inference YAML may say its transformer's sizes."""

PATHS = ("config_path", "checkpoint_path", "pretrained_model_path")
"""The reference's way to name a world, by three paths."""

EXAMPLE = "Skywork/Matrix-Game-2.0"

Exists = Callable[[str], bool]
"""Whether a folder or a repository has a file, named from its root."""


@dataclass(frozen=True)
class WorldFiles:
    """The files of a world's tensors. Untrained weights need no transformer."""

    transformer: Path | None
    vae: Path
    vision: Path


@dataclass(frozen=True)
class LocatedWorld:
    """A world that was found and not yet read."""

    name: str
    config: InferenceConfig
    files: WorldFiles | None  # None: untrained weights of the released sizes
    folder: Path | None = None  # where its start images are

    @property
    def notice(self) -> str:
        """What the world says about itself."""
        return "" if self.files is None else str(self.config.inference.get("notice", ""))

    @property
    def source(self) -> str:
        """What the world learned from, as `open_source` takes it; empty if it does not say."""
        return "" if self.files is None else str(self.config.inference.get("source", ""))

    @cached_property
    def spec(self) -> WorldSpec:
        """Everything about the world but the sizes of its VAE and image tower."""
        return outline_spec(self.config)


def embedded_worlds() -> list[str]:
    """Return the names of the worlds that come with the package."""
    return sorted(path.parent.name for path in WORLDS.glob(f"*/{INFERENCE_FILE}"))


def is_on_hub(options: LoadOptions) -> bool:
    """Return whether `locate_world` asks the hub for the world, and may download gigabytes."""
    named = options.pretrained_model_path or options.world
    if named is None or str(named) in embedded_worlds() or Path(named).exists():
        return False
    return is_hub_name(str(named))


def locate_world(options: LoadOptions) -> LocatedWorld:
    """Find the world that `options` name; raises `InputError` if there is none."""
    if options.variant is not None and options.variant not in VARIANTS:
        raise InputError(f"variant {options.variant!r:.80}: must be one of {', '.join(VARIANTS)}")
    paths = [name for name in PATHS if getattr(options, name) is not None]
    if options.world is not None and paths:
        raise InputError(f"{paths[0]}: world {str(options.world)!r} is named too; give one of them")
    if options.config_path is not None:
        return _from_config(Path(options.config_path), options)
    if options.pretrained_model_path is not None:
        named = options.pretrained_model_path
        return _from_folder(_model_folder(named, options, options.variant), str(named), options)
    if paths:
        raise InputError(
            "checkpoint_path: give pretrained_model_path too, the folder (or hub name) that holds "
            "the VAE and the image tower, and config_path for a world of other sizes than released"
        )
    if options.world is None and options.random_weights:
        variant = options.variant or DEFAULT_VARIANT
        return LocatedWorld("random weights", variant_config(variant), None)
    if options.world is None and options.variant is not None:
        raise InputError(
            f"variant {options.variant!r}: name the folder or hub repository that holds it as "
            f"world, such as {EXAMPLE}"
        )
    named = str(options.world or DEFAULT_WORLD)
    return _from_folder(_world_folder(named, options), named, options)


def _world_folder(name: str, options: LoadOptions) -> Path:
    """Return the folder of an embedded world, of that path or of that hub repository."""
    if name in embedded_worlds():
        return WORLDS / name
    if Path(name).is_dir():
        return Path(name)
    if Path(name).exists():
        raise InputError(f"{name}: is a file; name the folder of a world")
    if is_hub_name(name):
        return _downloaded(name, options, options.variant)
    if name == DEFAULT_WORLD:
        raise CheckpointError(
            f"{EMBEDDED}: the embedded world is not in this installation; install glassworld again"
        )
    raise InputError(
        f"world {name!r:.200}: no such world. Embedded worlds: {', '.join(embedded_worlds())}. "
        f"Or name a folder that is there, or a hub repository such as {EXAMPLE}"
    )


def _model_folder(name: str | Path, options: LoadOptions, variant: str | None) -> Path:
    """Return the folder of `pretrained_model_path`; from the hub, with that variant's files."""
    if Path(name).is_dir():
        return Path(name)
    if not is_hub_name(str(name)):
        raise CheckpointError(f"{name}: no such model folder; name one that is there")
    return _downloaded(str(name), options, variant)


def _from_config(path: Path, options: LoadOptions) -> LocatedWorld:
    """Find a world by its inference YAML and the folder of its weights."""
    config = read_config(path)
    if options.pretrained_model_path is None:
        if options.random_weights:
            return LocatedWorld("random weights", config, None)
        raise InputError(
            "pretrained_model_path: needed with a configuration; the folder (or hub name) that "
            "holds the VAE and the image tower"
        )
    variant = options.variant or str(config.inference.get("mode"))
    folder = _model_folder(options.pretrained_model_path, options, variant)
    _check_finished(folder)
    return LocatedWorld(folder.name, config, _files(folder, config, options), folder)


def _from_folder(folder: Path, named: str, options: LoadOptions) -> LocatedWorld:
    """Find a world in one folder: by its inference YAML, or as a released variant."""
    _check_finished(folder)
    settings = folder / INFERENCE_FILE
    weights = folder / "model" if (folder / "model").is_dir() else folder
    config = (
        read_config(settings) if settings.is_file() else _variant_settings(folder, weights, options)
    )
    return LocatedWorld(
        Path(named).resolve().name, config, _files(weights, config, options), folder
    )


def _check_finished(folder: Path) -> None:
    """Raise `CheckpointError` if a folder has files of two worlds."""
    if (folder / UNFINISHED_FILE).exists():
        raise CheckpointError(
            f"{folder}: holds files of two worlds, since a save was interrupted; save there again"
        )


def _files(folder: Path, config: InferenceConfig, options: LoadOptions) -> WorldFiles:
    mode = str(config.inference.get("mode"))
    if options.variant is not None and VARIANTS[options.variant].space.mode != mode:
        raise InputError(
            f"variant {options.variant!r}: {config.path} says mode {mode!r}; leave one of them out"
        )
    exists = _has(folder)
    transformer = None
    if not options.random_weights:
        transformer = _transformer(folder, options, mode)
    return WorldFiles(
        transformer=transformer,
        vae=folder / _find(exists, VAE_FILES, f"{folder}: no VAE in it"),
        vision=folder / _find(exists, VISION_FILES, f"{folder}: no image tower in it"),
    )


def _has(folder: Path) -> Exists:
    return lambda name: (folder / name).is_file()


def _transformer(folder: Path, options: LoadOptions, mode: str | None) -> Path:
    """Return the transformer's file, which may be missing where its name is known."""
    if options.checkpoint_path is not None:
        return Path(options.checkpoint_path)
    found = find_transformer(_has(folder), options.variant or mode)
    if found is not None:
        return folder / found
    if mode in VARIANTS:
        return folder / VARIANTS[options.variant or mode].file
    raise CheckpointError(f"checkpoint_path: needed, mode {mode!r} has no released file")


def find_transformer(exists: Exists, variant: str | None) -> str | None:
    """Return the transformer's file among those that exist; None if there is none.

    A world's own comes first, then the variant's as released. Without a variant: the only
    released one, or `universal` among several.
    """
    released = [variant] if variant in VARIANTS else [DEFAULT_VARIANT, *VARIANTS]
    names = (TRANSFORMER_FILE, *(VARIANTS[name].file for name in released), DIFFUSERS_TRANSFORMER)
    return next(filter(None, (_as_stored(exists, name) for name in names)), None)


def _as_stored(exists: Exists, name: str) -> str | None:
    """Return a file's name, or that of its shards' index or of the same as .pth; None for none."""
    stem = name.removesuffix(SAFETENSORS)
    spellings = (name, stem + INDEX, f"{stem}.pth") if name.endswith(SAFETENSORS) else (name,)
    return next((spelling for spelling in spellings if exists(spelling)), None)


def _find(exists: Exists, names: tuple[str, ...], missing: str) -> str:
    for name in names:
        stored = _as_stored(exists, name)
        if stored is not None:
            return stored
    raise CheckpointError(f"{missing}; give it {' or '.join(names[:2])}")


# Folders without an inference YAML


def _variant_settings(folder: Path, weights: Path, options: LoadOptions) -> InferenceConfig:
    """Return a variant's settings, with the transformer's sizes that the folder's config says."""
    exists = _has(weights)
    found = options.checkpoint_path or find_transformer(exists, options.variant)
    if found is None and not options.random_weights:
        wanted = VARIANTS[options.variant].file if options.variant else TRANSFORMER_FILE
        trained = folder / TRAINED_WORLD
        if (trained / INFERENCE_FILE).is_file():
            raise CheckpointError(f"{folder}: no world in it, but {trained} is one; name that")
        raise CheckpointError(
            f"{folder}: no world in it: neither {INFERENCE_FILE} nor a released transformer such "
            f"as {wanted}"
            "; name another folder"
        )
    variant = options.variant
    if found is not None and not options.random_weights:
        file = Path(found) if options.checkpoint_path else weights / str(found)
        variant = _variant_of(file, options.variant)
    config = variant_config(variant or DEFAULT_VARIANT)
    beside = [] if found is None else [(weights / str(found)).parent / "config.json"]
    for path in (*beside, *(root / name for root in (weights, folder) for name in MODEL_CONFIGS)):
        sizes = read_model_config(path)
        if sizes is not None:
            return config._replace(path=path, model={**config.model, **sizes})
    return config


def _variant_of(file: Path, asked: str | None) -> str:
    """Return the variant of a transformer: the one asked for if it fits, else what fits."""
    shapes: Shapes = dit_names(standard_names(read_shapes(file), file))
    fitting = fitting_variants(shapes)
    if not fitting or (asked is not None and asked not in fitting):
        what = f"is no {asked} transformer" if asked else "fits no variant"
        raise CheckpointError(f"{file}: {what}{fit_advice(shapes)}")
    if asked is not None:
        return asked
    return fitting[0] if len(fitting) == 1 else DEFAULT_VARIANT


# Repositories of the hub


def _downloaded(name: str, options: LoadOptions, variant: str | None) -> Path:
    """Download what a world needs from a repository; return its folder."""
    present = list_files(name)
    exists = set(present).__contains__
    missing = f"{name}: no VAE or image tower in this repository"
    parts = [_find(exists, VAE_FILES, missing), _find(exists, VISION_FILES, missing)]
    if options.checkpoint_path is None and not options.random_weights:
        transformer = find_transformer(exists, variant)
        if transformer is None:
            raise CheckpointError(
                f"{name}: no transformer in this repository; give checkpoint_path"
            )
        parts.append(transformer)
    shards = [f"{part.removesuffix(INDEX)}-*" for part in parts if part.endswith(INDEX)]
    settings = [file for file in present if file.endswith((INFERENCE_FILE, "config.json"))]
    return download(name, [*parts, *shards, *settings])
