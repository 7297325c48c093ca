"""Released checkpoints by their name on the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path

from glassworld.errors import CheckpointError


def is_hub_name(name: str) -> bool:
    """Return whether this looks like `owner/model` rather than a path."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None and not name.startswith(".")


def list_files(name: str) -> list[str]:
    """Return the files of the repository `name`; offline, those that were downloaded before."""
    from huggingface_hub import HfApi

    try:  # unlike list_repo_files, this does not repeat itself for half a minute without a network
        return [file.rfilename for file in HfApi().model_info(name).siblings or ()]
    except _network_errors() as error:
        reason = _reason(error)
    downloaded = _downloaded_files(name)
    if not downloaded:
        raise CheckpointError(
            f"{name}: no such folder, and the hub does not give it ({reason}); "
            "check the name and the network"
        )
    return downloaded


def _downloaded_files(name: str) -> list[str]:
    """Return the files of the repository's newest snapshot that are here, perhaps not all."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir().repos
    except CacheNotFound:
        return []
    folders = [
        revision.snapshot_path
        for repository in repositories
        if (repository.repo_type, repository.repo_id) == ("model", name)
        for revision in repository.revisions
        if "main" in revision.refs
    ]
    return [
        path.relative_to(folder).as_posix()
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file()
    ]


def download(name: str, files: list[str]) -> Path:
    """Return the folder with `files` of the repository `name`, downloaded unless already there."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=files))
    except _network_errors() as error:
        raise CheckpointError(
            f"{name}: cannot be downloaded ({_reason(error)}); try again, or name a local folder"
        ) from None


def _network_errors() -> tuple[type[Exception], ...]:
    """Return what the hub's client raises; which HTTP library it uses depends on its version."""
    from huggingface_hub import errors

    http_error: type[Exception] = errors.HTTPError  # type: ignore[attr-defined]
    return errors.HfHubHTTPError, errors.LocalEntryNotFoundError, http_error, OSError


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
