"""Run a real fleet with the tiny world, by the command line, and look at its processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Self

from tests.support import tiny
from tests.support.live import PlayClient, until
from tests.support.paths import ROOT

START_SECONDS = 240  # several Pythons import torch, on a machine that may be busy


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


class RunningFleet:
    """`glassworld serve` with the tiny world, for a `with`."""

    def __init__(self, folder: Path, *flags: str) -> None:
        tiny.world().save(folder / "tiny")
        self.port, self.control_port = free_port(), free_port()
        self.home = folder / "home"
        self.home.mkdir()
        self._flags, self._output = flags, folder / "output.txt"
        self._world = str(folder / "tiny")
        self.process: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "glassworld", "serve", "--world", self._world]
        command += ["--port", str(self.port), "--control-port", str(self.control_port)]
        environment = os.environ | {"HOME": str(self.home), "OMP_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = str(ROOT)
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [*command, "--device", "cpu", *self._flags],
                stdout=output,
                stderr=output,
                cwd=ROOT,
                env=environment,
            )
        if not until(lambda: "ready after" in self.output or self.process.poll(), START_SECONDS):
            self.process.kill()
        assert "ready after" in self.output, self.output
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        assert self.process.wait(60) == 0
        assert "Traceback" not in self.output
        assert list(self.home.iterdir()) == []

    @property
    def output(self) -> str:
        return self._output.read_text(encoding="utf-8")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def client(self, world: str | None = None) -> Any:
        """Return a client of a world, or of the default one, to be connected by a `with`."""
        return PlayClient(self.url, world)

    def post(self, **body: Any) -> tuple[int, dict[str, Any]]:
        """Ask for a session; return the status and the answer."""
        request = urllib.request.Request(f"{self.url}sessions", json.dumps(body).encode())
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def control(self, path: str, method: str = "GET") -> str:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.control_port}{path}", method=method
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            return str(response.read().decode())

    def workers(self) -> list[dict[str, Any]]:
        """Return the workers as the control port shows them; none while the directory restarts."""
        try:
            worlds = json.loads(self.control("/status"))
        except urllib.error.HTTPError:
            return []
        return [worker for world in worlds for worker in world["workers"]]

    def ready_workers(self) -> list[dict[str, Any]]:
        return [worker for worker in self.workers() if worker["state"] == "ready"]

    def worker_of_player(self) -> dict[str, Any]:
        """Return the worker with the only connected player."""
        assert until(lambda: any(worker["connected"] for worker in self.workers()))
        return next(worker for worker in self.workers() if worker["connected"])

    def is_restarted(self, actor: str, process: int) -> bool:
        """Return whether an actor runs in another process than before."""
        return self.process_of(actor) not in (0, process)

    def process_of(self, actor: str) -> int:
        """Return the process of an actor of this fleet."""
        return process_of(actor, self.process.pid)


def process_of(actor: str, started_by: int) -> int:
    """Return the process of an actor in the Ray that a process started, or 0.

    Ray's processes are children of its raylet, which is a child of that process.
    """
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes().decode()
            is_ours = _parent(_parent(int(path.name))) == started_by
        except (OSError, ValueError):
            continue
        if command.startswith(f"ray::{actor}") and is_ours:
            return int(path.name)
    return 0


def _parent(process: int) -> int:
    fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return int(fields[1])
