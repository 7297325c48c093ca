"""`glassworld play` as people start it."""

from __future__ import annotations

import io
import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file
from websockets.exceptions import InvalidStatus

from glassworld.cli import inference, main
from glassworld.engine.checkpoint.load import load_world
from tests.support.live import PlayClient
from tests.support.paths import ROOT
from tests.support.release import write_release


def test_a_port_in_use(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert main(["play", "--no-open", "--port", port]) == 2
    error = capsys.readouterr().err
    assert port in error
    assert "--port" in error
    assert error.count("\n") == 1


def test_no_such_world(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["play", "--no-open", "--port", "0", "--world", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert "inference.yaml" in said.err
    assert said.out == ""  # no address to go to


def test_no_such_address(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["play", "--no-open", "--host", "203.0.113.1", "--port", "0"]) == 2
    assert "--host" in capsys.readouterr().err


def test_another_address_only_with_the_token(tmp_path: Path) -> None:
    write_release(tmp_path / "world")
    with playing(tmp_path / "world", "--host", "0.0.0.0") as (server, said):
        found = re.search(r"http://\S+:(\d+)/\?token=(\S+)", said)
        assert found is not None
        address = f"ws://127.0.0.1:{found[1]}/ws"
        with pytest.raises(InvalidStatus, match="403"), PlayClient(address):
            pass
        with PlayClient(f"{address}?token={found[2]}") as client:
            client.start()
            assert len(list(client.frames(9))) == 9
        assert ended(server).count("ready") == 1


@contextmanager
def playing(world: Path, *more: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`glassworld play` in a process of its own, and the first line it says."""
    command = ["play", "--no-open", "--port", "0", "--device", "cpu", "--world", str(world), *more]
    with subprocess.Popen(
        [sys.executable, "-m", "glassworld", *command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as server:
        assert server.stdout is not None
        try:
            yield server, server.stdout.readline()
        finally:
            server.kill()


def ended(server: subprocess.Popen[str]) -> str:
    """End a server as people do; what else it has said."""
    server.send_signal(signal.SIGINT)
    assert server.stdout is not None
    said = server.stdout.read()
    assert server.wait(30) == 0
    assert "Traceback" not in said
    return said


def decoded(video: Path) -> np.ndarray:
    """The frames of a video, uint8 [N, H, W, 3]."""
    with av.open(str(video)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_play_record_leave_and_replay(tmp_path: Path) -> None:
    """The recording of a real server, replayed by the command line."""
    world, home = tmp_path / "world", tmp_path / "home"
    home.mkdir()
    flags = write_release(world)
    with playing(world) as (server, said):
        address = re.search(r"http://127.0.0.1:\d+/", said)
        assert address is not None
        with PlayClient(address[0].replace("http", "ws") + "ws") as client:
            client.send("pause")  # so that the recording begins with the walk
            client.start(seed=9)
            client.send("record", on=True)
            client.hold("w")
            client.send("resume")
            shown = list(client.frames(12))
            client.send("pause")
            client.send("record", on=False)
            tape = {"on": True}
            while tape["on"]:
                tape = client.wait_for("recording")
        for name, suffix in (("video", ".mp4"), ("actions", ".json"), ("picture", ".png")):
            with urllib.request.urlopen(address[0].rstrip("/") + tape[name], timeout=30) as file:
                (home / f"{name}{suffix}").write_bytes(file.read())
        assert "ready" in ended(server)

    latents = home / "latents.safetensors"
    replay = ["--actions", str(home / "actions.json"), "--save_latents", str(latents)]
    picture = ["--img_path", str(home / "picture.png"), "--output_folder", str(home)]
    assert inference([*flags[:4], *picture, *replay, "--device", "cpu"]) == 0

    script = json.loads((home / "actions.json").read_text())
    run = load_world(world).generate(
        home / "picture.png",
        (len(script["keyboard"]) - 1) // 4 + 1,
        script["seed"],
        home / "actions.json",
        noise="blocks",
    )
    videos = [decoded(home / name) for name in ("video.mp4", "demo.mp4")]
    assert videos[0].shape == videos[1].shape  # x264's bits differ from one run to the next
    assert np.abs(np.subtract(*videos, dtype=np.int16)).mean() < 3
    (made,) = load_file(latents).values()
    np.testing.assert_array_equal(made, run.latents.numpy())
    for frame in shown:
        picture = np.asarray(Image.open(io.BytesIO(frame.image)))
        np.testing.assert_array_equal(picture, run.frames[frame.number])
    assert [frame.number for frame in shown] == list(range(12))
