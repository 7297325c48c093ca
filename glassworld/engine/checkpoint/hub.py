"""Released checkpoints by their name on the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path

from glassworld.errors import CheckpointError


def is_hub_name(name: str) -> bool:
    """Whether this looks like `owner/model` rather than a path."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None and not name.startswith(".")


def download(name: str, files: list[str]) -> Path:
    """The folder with `files` of the model `name`, fetched with progress unless already there."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=files))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"{name}: no such folder, and not to be had from the hub ({reason})"
        ) from None
