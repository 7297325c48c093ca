"""Worlds by their name on a hub: downloaded once, and one line where that fails."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from glassworld.engine.checkpoint.hub import is_hub_name
from tests.support import tiny

REPOSITORY = "/models/owner/model"
COMMIT = hashlib.sha1(b"first").hexdigest()


class HubHandler(SimpleHTTPRequestHandler):
    """Answers as the hub does for the one repository `owner/model`, the served folder."""

    requests: list[str] = []  # noqa: RUF012 - all handlers of a test share it

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        api = f"/api{REPOSITORY}"
        if not self.path.startswith("/api/"):
            super().do_GET()
        elif self.path.startswith(f"{api}/tree/"):
            entry = {"type": "file", "oid": ""}
            self._answer([entry | {"path": file, "size": size} for file, size in self._sizes()])
        elif self.path.startswith(api):
            siblings = [{"rfilename": file} for file, _ in self._sizes()]
            self._answer({"id": "owner/model", "sha": COMMIT, "siblings": siblings})
        else:
            self.send_error(404)

    def _sizes(self) -> list[tuple[str, int]]:
        root = Path(self.directory)
        files = [path for path in root.rglob("*") if path.is_file()]
        return [(path.relative_to(root).as_posix(), path.stat().st_size) for path in files]

    def _answer(self, content: object) -> None:
        answer = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def translate_path(self, path: str) -> str:
        """Return the file that `/owner/model/resolve/REVISION/FILE` names."""
        return str(Path(self.directory) / path.split("/", 5)[5])

    def end_headers(self) -> None:
        if "/resolve/" in self.path:
            if self.command == "GET":
                self.requests.append(self.path.rpartition(f"{COMMIT}/")[2])
            self.send_header("ETag", f'"{hashlib.sha256(self.path.encode()).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
        super().end_headers()


@contextmanager
def hub(folder: Path) -> Iterator[str]:
    """Serve a folder as a repository; yield the address of the hub."""
    HubHandler.requests.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(HubHandler, directory=str(folder)))
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        serving.join()
        server.server_close()


def generate(endpoint: str, cache: Path, output: Path) -> subprocess.CompletedProcess[str]:
    """Run the command with a world of the hub."""
    command = ["-m", "glassworld", "generate", "--world", "owner/model", "--seed", "3"]
    command += ["--img_path", str(cache.parent / "picture.png"), "--device", "cpu"]
    command += ["--num_output_frames", "3", "--output-folder", str(output)]
    return subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(cache)},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_world_of_a_hub_is_downloaded_once_and_then_runs_without_a_network(tmp_path: Path) -> None:
    tiny.world().save(tmp_path / "repository")
    (tmp_path / "repository" / "another_model.safetensors").write_bytes(b"not asked for")
    tiny.picture().save(tmp_path / "picture.png")
    with hub(tmp_path / "repository") as endpoint:
        online = generate(endpoint, tmp_path / "cache", tmp_path / "online")
        asked = list(HubHandler.requests)
    assert online.returncode == 0, online.stderr
    assert any(file.startswith("transformer") for file in asked)
    assert "another_model.safetensors" not in asked
    offline = generate(endpoint, tmp_path / "cache", tmp_path / "offline")
    assert offline.returncode == 0, offline.stderr
    videos = [(tmp_path / name / "demo.mp4").read_bytes() for name in ("online", "offline")]
    assert videos[0] == videos[1]


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
