"""Find a world's settings and files before anything heavy is read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from glassworld.engine.checkpoint.config import (
    VARIANTS,
    InferenceConfig,
    outline_spec,
    read_config,
    variant_config,
)
from glassworld.engine.checkpoint.hub import download, is_hub_name
from glassworld.engine.checkpoint.options import LoadOptions
from glassworld.errors import CheckpointError, InputError
from glassworld.specs import WorldSpec

WORLDS = Path(__file__).resolve().parents[2] / "worlds"
DEFAULT_WORLD, DEFAULT_VARIANT = "maze", "universal"
EMBEDDED = WORLDS / DEFAULT_WORLD

INFERENCE_FILE = "inference.yaml"
TRANSFORMER_FILE = "transformer.safetensors"
VAE_FILES = ("Wan2.1_VAE.pth", "Wan2.1_VAE.safetensors", "vae.safetensors")
VISION_FILES = (
    "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth",
    "models_clip_open-clip-xlm-roberta-large-vit-huge-14.safetensors",
    "vision.safetensors",
)
PATHS = ("config_path", "checkpoint_path", "pretrained_model_path")
"""The reference's way to name a world, by three paths."""


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

    @cached_property
    def spec(self) -> WorldSpec:
        """Everything about the world but the sizes of its VAE and image tower."""
        return outline_spec(self.config)


def embedded_worlds() -> list[str]:
    """Return the names of the worlds that come with the package."""
    return sorted(path.parent.name for path in WORLDS.glob(f"*/{INFERENCE_FILE}"))


def locate_world(options: LoadOptions) -> LocatedWorld:
    """Find the world that `options` name; raises `InputError` if there is none."""
    if options.variant is not None and options.variant not in VARIANTS:
        raise InputError(f"variant {options.variant!r:.80}: must be one of {', '.join(VARIANTS)}")
    paths = [name for name in PATHS if getattr(options, name) is not None]
    if options.world is not None and paths:
        raise InputError(f"{paths[0]}: the world is named already; give one of the two")
    if paths:
        return _from_paths(options)
    if options.world is None and options.random_weights:
        variant = options.variant or DEFAULT_VARIANT
        return LocatedWorld(f"{variant}, untrained", variant_config(variant), None)
    if options.world is None and options.variant is not None:
        raise InputError(
            f"variant {options.variant!r}: name the folder or hub repository that holds it, such "
            "as --world Skywork/Matrix-Game-2.0"
        )
    name = str(options.world or DEFAULT_WORLD)
    return _from_folder(_world_folder(name), name, options)


def _world_folder(name: str) -> Path:
    """Return the folder of an embedded world, of that path or of that hub repository."""
    if name in embedded_worlds():
        return WORLDS / name
    folder = Path(name)
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise InputError(f"{name}: is a file; name the folder of a world")
    if is_hub_name(name):
        return download(name, [VAE_FILES[0], VISION_FILES[0]])
    if name == DEFAULT_WORLD:
        raise CheckpointError(f"{EMBEDDED}: the embedded world is not in this installation")
    raise InputError(
        f"world {name!r:.200}: no such world or folder. Embedded worlds: "
        f"{', '.join(embedded_worlds())}. Or name a folder, or a hub repository such as "
        "Skywork/Matrix-Game-2.0"
    )


def _from_folder(folder: Path, name: str, options: LoadOptions) -> LocatedWorld:
    settings = folder / INFERENCE_FILE
    if not settings.is_file():
        raise InputError(f"{folder}: no {INFERENCE_FILE} in it; name the folder of a world")
    config = read_config(settings)
    weights = folder / "model" if (folder / "model").is_dir() else folder
    return LocatedWorld(Path(name).name, config, _find_files(weights, config, options), folder)


def _from_paths(options: LoadOptions) -> LocatedWorld:
    """Find a world by the reference's three paths."""
    if options.config_path is None:
        raise InputError("config_path: needed with a checkpoint; name the world's inference YAML")
    config, model = read_config(Path(options.config_path)), options.pretrained_model_path
    if model is None:
        if options.random_weights:
            return LocatedWorld("random weights", config, None)
        raise InputError(
            "pretrained_model_path: needed with a configuration; the folder (or hub name) that "
            "holds the VAE and the image tower"
        )
    folder = Path(model)
    if not folder.is_dir():
        if not is_hub_name(str(model)):
            raise CheckpointError(f"{model}: no such model folder")
        needed = [VAE_FILES[0], VISION_FILES[0]]
        mode = str(config.inference.get("mode"))
        if options.checkpoint_path is None and mode in VARIANTS:
            needed.append(VARIANTS[mode].file)
        folder = download(str(model), needed)
    return LocatedWorld(folder.name, config, _find_files(folder, config, options), folder)


def _find_files(folder: Path, config: InferenceConfig, options: LoadOptions) -> WorldFiles:
    return WorldFiles(
        transformer=None if options.random_weights else _transformer(folder, config, options),
        vae=_find(folder, VAE_FILES, "VAE"),
        vision=_find(folder, VISION_FILES, "image tower"),
    )


def _transformer(folder: Path, config: InferenceConfig, options: LoadOptions) -> Path:
    if options.checkpoint_path is not None:
        return Path(options.checkpoint_path)
    if (folder / TRANSFORMER_FILE).is_file():
        return folder / TRANSFORMER_FILE
    mode = str(config.inference.get("mode"))
    if mode not in VARIANTS:
        raise CheckpointError(f"checkpoint_path: needed, mode {mode!r} has no released file")
    return folder / VARIANTS[options.variant or mode].file


def _find(folder: Path, names: tuple[str, ...], what: str) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(f"{folder}: no {what} in it; {names[0]} is missing")
