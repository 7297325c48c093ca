"""Which training a folder holds: the flags that a resumed training has to repeat."""

import hashlib
import json
from pathlib import Path

from glassworld.engine.checkpoint.options import LoadOptions
from glassworld.engine.networks import Networks
from glassworld.errors import InputError
from glassworld.files import write_file
from glassworld.training.recipes import RunFolders, TrainingRecipe

SETTINGS_FILE = "training.json"
"""In the folder of a run."""

DIGEST_NUMBERS = 16
"""Of each weight, for a digest that also takes no time with released worlds."""

RECORDINGS = "recordings"
"""Source of a training from videos; the manifest beside their shards names them."""

WEIGHTS = "weights"
"""Entry with a digest of the weights to start from; older runs have none."""


def run_settings(
    recipe: TrainingRecipe, start: LoadOptions | None, networks: Networks | None
) -> dict[str, str]:
    """Return the flags that decide what a training learns from and how large its world is.

    Files are named without the folders above them, so that a run may move to another machine. A
    mapping is named with a digest of its content, and a world to start from has one of its weights,
    `networks`.
    """
    source, _, mapping = recipe.source.partition("@")
    recorded = recipe.recordings is not None
    return {
        "preset": recipe.preset,
        "source": RECORDINGS if recorded else source,
        "mapping": _digested(Path(mapping)) if mapping and not recorded else "",
        "from": "" if start is None else _start_name(start),
        "lora": str(recipe.lora),
        WEIGHTS: "" if networks is None else _weights_digest(networks),
    }


def keep_settings(folders: RunFolders, settings: dict[str, str]) -> None:
    """Write the settings of a run into its folder, or compare them with those in it.

    While nothing is collected yet, new settings replace those of a run that failed. A folder with
    episodes but without settings is from before there were any.

    Raises
    ------
    InputError
        The folder holds a training with other settings.
    """
    path = folders.root / SETTINGS_FILE
    if not _holds_results(folders):
        write_file(path, json.dumps(settings, indent=1).encode())
        return
    if not path.exists():
        return
    try:
        before = json.loads(path.read_bytes())
        before.setdefault(WEIGHTS, settings[WEIGHTS])
        differing = [name for name, value in settings.items() if before[name] != value]
    except (ValueError, AttributeError, KeyError) as error:
        raise InputError(f"{path}: damaged; delete it to go on with the same flags") from error
    if differing == [WEIGHTS]:
        raise InputError(
            f"{folders.root}: holds a training from {settings['from']}, whose weights have changed "
            "since; bring them back, or choose another --output"
        )
    for name in differing:
        raise InputError(
            f"{folders.root}: holds a training with --{name} {before[name] or 'none'}, not "
            f"{settings[name] or 'none'}; repeat its flags, or choose another --output"
        )


def _holds_results(folders: RunFolders) -> bool:
    """Return whether a run has collected or trained something."""
    shards = (any(part.glob("shard-*")) for part in (folders.episodes, folders.held_out))
    return any(shards) or folders.latents.exists() or folders.vae.exists()


def _digested(mapping: Path) -> str:
    return f"{mapping.name} ({hashlib.sha256(mapping.read_bytes()).hexdigest()[:8]})"


def _weights_digest(networks: Networks) -> str:
    """Return a digest of the first numbers of each weight, which any training changes."""
    digest = hashlib.sha256()
    for part in (networks.dit, networks.encoder, networks.decoder, networks.vision):
        for name, value in part.state_dict().items():
            digest.update(name.encode())
            digest.update(value.flatten()[:DIGEST_NUMBERS].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:8]


def _start_name(start: LoadOptions) -> str:
    """Return how a world to start from is named: a folder by its last two parts."""
    world = str(start.world or "")
    if world and Path(world).is_dir():
        world = "/".join(Path(world).resolve().parts[-2:])
    return " ".join(filter(None, (world, start.variant)))
