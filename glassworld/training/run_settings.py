"""Which training a folder holds: the flags that a resumed training has to repeat."""

import hashlib
import json
from pathlib import Path

from glassworld.engine.checkpoint.options import LoadOptions
from glassworld.errors import InputError
from glassworld.files import write_file
from glassworld.training.recipes import RunFolders, TrainingRecipe

SETTINGS_FILE = "training.json"
"""In the folder of a run."""

RECORDINGS = "recordings"
"""Source of a training from videos; the manifest beside their shards names them."""


def run_settings(recipe: TrainingRecipe, start: LoadOptions | None) -> dict[str, str]:
    """Return the flags that decide what a training learns from and how large its world is.

    Files are named without the folders above them, so that a run may move to another machine. A
    mapping is named with a digest of its content.
    """
    source, _, mapping = recipe.source.partition("@")
    recorded = recipe.recordings is not None
    return {
        "preset": recipe.preset,
        "source": RECORDINGS if recorded else source,
        "mapping": _digested(Path(mapping)) if mapping and not recorded else "",
        "from": "" if start is None else _start_name(start),
        "lora": str(recipe.lora),
    }


def keep_settings(folders: RunFolders, settings: dict[str, str]) -> None:
    """Write the settings of a run into its folder, or compare them with those in it.

    A folder with episodes but without settings is from before there were any.

    Raises
    ------
    InputError
        The folder holds a training with other settings.
    """
    path = folders.root / SETTINGS_FILE
    if not path.exists():
        if not folders.episodes.exists():
            write_file(path, json.dumps(settings, indent=1).encode())
        return
    try:
        before = json.loads(path.read_bytes())
        differing = [name for name, value in settings.items() if before[name] != value]
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}: damaged; delete it to go on with the same flags") from error
    for name in differing:
        raise InputError(
            f"{folders.root}: holds a training with --{name} {before[name] or 'none'}, not "
            f"{settings[name] or 'none'}; repeat its flags, or choose another --output"
        )


def _digested(mapping: Path) -> str:
    return f"{mapping.name} ({hashlib.sha256(mapping.read_bytes()).hexdigest()[:8]})"


def _start_name(start: LoadOptions) -> str:
    """Return how a world to start from is named: a folder by its last two parts."""
    world = str(start.world or "")
    if world and Path(world).is_dir():
        world = "/".join(Path(world).resolve().parts[-2:])
    return " ".join(filter(None, (world, start.variant)))
