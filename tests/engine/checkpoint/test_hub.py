"""What happens when the hub cannot be reached."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from glassworld.engine.checkpoint.hub import is_hub_name


def test_hub_names_are_an_owner_and_a_model() -> None:
    assert is_hub_name("Skywork/Matrix-Game-2.0")
    assert not is_hub_name("./model")
    assert not is_hub_name("runs/drive/world")


def test_list_files_without_a_network_is_one_line(tmp_path: Path) -> None:
    settings = {"HF_ENDPOINT": "http://127.0.0.1:1", "HF_HOME": str(tmp_path)}
    code = """
from glassworld.engine.checkpoint.hub import download, list_files
from glassworld.errors import CheckpointError
for ask in (list_files, lambda name: download(name, ["model.safetensors"])):
    try:
        ask("owner/model")
    except CheckpointError as error:
        print(error)
"""
    run = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **settings}, capture_output=True, text=True
    )
    listing, downloading = run.stdout.splitlines()
    assert listing.startswith("owner/model: no such folder, and the hub does not give it (")
    assert listing.endswith("; check the name and the network")
    assert downloading.startswith("owner/model: cannot be downloaded (")
    assert run.stderr == ""
