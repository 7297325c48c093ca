"""Workers of a Ray that counts GPUs which this machine does not have: nothing computes on them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from glassworld.engine.checkpoint.options import LoadOptions
from glassworld.serve import directory
from glassworld.serve.deployment import find_or_start_directory
from glassworld.serve.directory import Directory, start_worker
from glassworld.serve.options import FleetOptions, WorldOptions
from glassworld.serve.ray_cluster import DIRECTORY, actor_named, import_ray
from tests.support import tiny
from tests.support.fleet import RunningFleet, free_port
from tests.support.live import until
from tests.support.paths import ROOT
from tests.support.ray_gpus import ray_with_gpus, visible_gpus

pytest.importorskip("ray", reason="ray is not installed")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="looks processes up in /proc"),
]


def gpus_of(worker: str) -> str | None:
    """Return the GPUs that Ray shows to a worker."""
    call = actor_named(worker).__ray_call__.remote(visible_gpus)
    shown: str | None = import_ray().get(call, timeout=60)
    return shown


def test_workers_of_auto_have_a_gpu_each(tmp_path: Path) -> None:
    with ray_with_gpus(2) as address:
        flags = ["--device", "auto", "--cluster", address, "--state", str(tmp_path / "state")]
        with RunningFleet(tmp_path, *flags, "--workers", "2") as fleet:
            assert until(lambda: len(fleet.ready_workers()) == 2, 120)
            assert {gpus_of(each["name"]) for each in fleet.ready_workers()} == {"0", "1"}
            assert "device: a GPU for each worker; Ray sees 2\n" in fleet.output
            said = fleet.output.index("device: a GPU")
            assert said < fleet.output.index("ready after")


@pytest.mark.parametrize(("gpus", "device"), [(0, "cpu"), (1, "auto")])
def test_device_of_a_deployment_is_settled_once(tmp_path: Path, gpus: int, device: str) -> None:
    options = FleetOptions((WorldOptions("w", LoadOptions()),), str(tmp_path), secret=b"s" * 32)
    with ray_with_gpus(gpus):
        find_or_start_directory(options)
        call = actor_named(DIRECTORY).__ray_call__.remote(device_of)
        assert import_ray().get(call, timeout=60) == device


def device_of(directory: Directory) -> str:
    return directory._options.worlds[0].load.device


def test_worker_that_found_no_gpu_in_time_does_not_start_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = WorldOptions("w", LoadOptions(device="cuda"), workers=1, max_workers=1)
    options = FleetOptions((world,), str(tmp_path))
    monkeypatch.setattr(directory, "BACKOFF_SECONDS", float("inf"))  # start no other
    with ray_with_gpus(0):
        start_worker(options, world, "w-1")
        fleet = Directory(replace(options, secret=b"s" * 32))
        state = fleet._worlds["w"]
        state.starting["w-1"] = time.monotonic() - directory.START_SECONDS - 1
        state.failed_at = time.monotonic()
        asyncio.run(fleet._scale(state))
        assert not state.starting
        with pytest.raises(ValueError, match="w-1"):
            actor_named("w-1")


def test_cluster_whose_token_is_not_here_is_one_line(tmp_path: Path) -> None:
    tiny.world().save(tmp_path / "tiny")
    command = [sys.executable, "-m", "glassworld", "serve", "--world", str(tmp_path / "tiny")]
    command += ["--state", str(tmp_path), "--port", str(free_port()), "--control-port", "0"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "token"}
    environment["HOME"] = str(tmp_path)  # where Ray looks for a token
    environment.pop("RAY_AUTH_TOKEN", None)
    ended = subprocess.run(
        [*command, "--cluster", "127.0.0.1:1"],
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert ended.returncode == 2
    assert ended.stderr == (
        "error: --cluster 127.0.0.1:1: the cluster wants a token; set RAY_AUTH_TOKEN to that of "
        "the cluster\n"
    )
