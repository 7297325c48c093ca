"""The ingress as an application of a real Ray Serve."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support import tiny
from tests.support.fleet import START_SECONDS, free_port, process_of
from tests.support.live import PlayClient, until
from tests.support.paths import ROOT

pytest.importorskip("ray", reason="ray is not installed")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="looks processes up in /proc"),
]


class Deployed(NamedTuple):
    """A running application: its address, and the process that started Ray."""

    url: str
    process: int


@pytest.fixture
def deployed(tmp_path: Path) -> Iterator[Deployed]:
    tiny.world().save(tmp_path / "tiny")
    port = free_port()
    world = {"name": "tiny", "load": {"world": str(tmp_path / "tiny"), "device": "cpu"}}
    arguments = {
        "worlds": [world],
        "state_folder": str(tmp_path / "state"),
        "worker_url": "ws://{node}:{port}",
        "worker_port": 0,
    }
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    environment["GLASSWORLD_SECRET"] = "the tickets of a test are signed with this"
    errors = tmp_path / "errors.txt"
    with (
        errors.open("wb") as stderr,
        subprocess.Popen(
            [sys.executable, "-m", "tests.support.ray_serve", str(port), json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=environment,
            text=True,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n", errors.read_text(encoding="utf-8")
        yield Deployed(f"http://127.0.0.1:{port}/", process.pid)
        process.stdin.close()
        process.wait(60)


def test_sessions_go_on_while_ray_serve_brings_its_ingress_back(deployed: Deployed) -> None:
    with PlayClient(deployed.url) as client:
        client.start(seed=3)
        frames = list(client.frames(15))
        replica = process_of("ServeReplica", deployed.process)
        os.kill(replica, signal.SIGKILL)
        frames += client.frames(15)
        assert [frame.number for frame in frames] == list(range(len(frames)))
        assert until(
            lambda: process_of("ServeReplica", deployed.process) not in (0, replica), START_SECONDS
        )
        with PlayClient(deployed.url) as another:
            another.start()
            assert list(another.frames(3))
