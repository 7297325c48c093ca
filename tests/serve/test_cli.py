"""Bad input of `glassworld serve`, and the arguments of a deployment."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from glassworld.cli import main
from glassworld.engine.checkpoint.options import LoadOptions
from glassworld.errors import InputError
from glassworld.serve.deployment import fleet_options
from glassworld.serve.launch import _check_gpus, _settle_device
from glassworld.serve.options import FleetOptions, WorldOptions
from tests.support.paths import ROOT


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["serve", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


def test_missing_ray_names_the_extra(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert "pip install 'glassworld[cluster]'" in error_of(capsys)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--workers", "3", "--max-workers", "2"], "--max-workers 2: less than --workers 3"),
        (["--cluster", "auto"], "--cluster: needs --state"),
        (["--worker-url", "http://h"], "must begin with ws://"),
        (["--worker-url", "ws://{name}"], "only {host}, {node} and {port}"),
        (["--also", "drive"], "two worlds have the same name"),
        (["--world", "nowhere/at/all"], "nowhere/at/all"),
        (["--device", "cuda:0"], "'cuda:0': Ray gives each worker a GPU of its own; use device"),
        (["--device", "cuda:1"], "'cuda:1': Ray gives each worker a GPU of its own; use device"),
    ],
)
def test_flags_that_do_not_fit_are_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str
) -> None:
    pytest.importorskip("ray", reason="ray is not installed")
    assert reason in error_of(capsys, *arguments)


def test_port_in_use_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ray", reason="ray is not installed")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"127.0.0.1 port {port}: cannot listen there" in error_of(
            capsys, "--port", str(port)
        )


def test_cuda_needs_gpus_for_all_workers() -> None:
    world = WorldOptions("w", LoadOptions(device="cuda"), workers=2)
    fleet = FleetOptions((world,), "")
    assert _settle_device(fleet, 2) == (fleet, "")
    _check_gpus(fleet, 2)
    with pytest.raises(InputError, match="2 workers need a GPU each, and Ray sees 1"):
        _check_gpus(fleet, 1)


def fleet_on_auto(worlds: int, workers: int, max_workers: int) -> FleetOptions:
    world = WorldOptions("w", LoadOptions(), workers, max_workers)
    return FleetOptions((world,) * worlds, "")


def test_auto_is_a_gpu_for_each_worker_where_ray_sees_enough() -> None:
    fleet = fleet_on_auto(worlds=2, workers=1, max_workers=2)
    settled, line = _settle_device(fleet, 4)
    assert settled == fleet
    assert line == "device: a GPU for each worker; Ray sees 4"
    assert all(world.load.needs_gpu for world in settled.worlds)


def test_auto_is_the_cpu_where_ray_sees_no_gpu() -> None:
    settled, line = _settle_device(fleet_on_auto(worlds=1, workers=2, max_workers=3), 0)
    assert "the CPU" in line
    (world,) = settled.worlds
    assert (world.load.device, world.workers, world.max_workers) == ("cpu", 2, 3)


@pytest.mark.parametrize(
    ("worlds", "workers", "max_workers", "gpus", "fewer"),
    [(1, 2, 2, 1, (1, 1)), (1, 2, 8, 4, (2, 4)), (2, 2, 2, 3, (1, 1))],
)
def test_auto_with_few_gpus_has_fewer_workers_and_says_so(
    worlds: int, workers: int, max_workers: int, gpus: int, fewer: tuple[int, int]
) -> None:
    settled, line = _settle_device(fleet_on_auto(worlds, workers, max_workers), gpus)
    assert {(world.workers, world.max_workers) for world in settled.worlds} == {fewer}
    assert f"Ray sees {gpus}, so a world has at most {fewer[1]} of {max_workers} workers" in line
    assert "add machines with GPUs, or use --device cpu" in line
    _check_gpus(settled, gpus)


def test_auto_needs_a_gpu_for_each_world() -> None:
    with pytest.raises(InputError, match="--device auto: 2 worlds need a GPU each, and Ray sees 1"):
        _settle_device(fleet_on_auto(worlds=2, workers=1, max_workers=1), 1)


SECRET = "s" * 32


def arguments() -> dict[str, Any]:
    config = yaml.safe_load((ROOT / "deploy/serve.yaml").read_text(encoding="utf-8"))
    return dict(config["applications"][0]["args"])


def test_files_to_deploy_name_options_that_exist() -> None:
    options = fleet_options(arguments(), SECRET)
    assert options.worlds[0].name == "maze"
    assert SECRET not in repr(options)
    manifests = yaml.safe_load_all((ROOT / "deploy/rayservice.yaml").read_text(encoding="utf-8"))
    service = next(each for each in manifests if each["kind"] == "RayService")
    config = yaml.safe_load(service["spec"]["serveConfigV2"])
    options = fleet_options(config["applications"][0]["args"], SECRET)
    assert options.worlds[0].load.needs_gpu
    assert options.address("h", "10.0.0.7", 8771) == (
        "wss://play.example.org/worker/10.0.0.7/8771/ws"
    )


@pytest.mark.parametrize(
    ("change", "secret", "reason"),
    [
        ({"worlds": []}, SECRET, "at least one world"),
        ({"worker": 1}, SECRET, "unknown field `worker`"),
        ({"worlds": [{"name": "w", "load": {"word": "x"}}]}, SECRET, "word"),
        ({"worlds": [{"name": "w", "load": {"device": "cuda:1"}}]}, SECRET, "use device cuda"),
        ({}, "short", "GLASSWORLD_SECRET"),
    ],
)
def test_wrong_arguments_of_a_deployment_are_refused(
    change: dict[str, Any], secret: str, reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        fleet_options(arguments() | change, secret)


def test_dockerfile_installs_extras_that_exist() -> None:
    text = Path(ROOT / "deploy/Dockerfile").read_text(encoding="utf-8")
    assert ".[play,cluster]" in text
