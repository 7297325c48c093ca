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
from pathlib import Path

import av
import numpy as np
import pytest
from live import PlayClient
from PIL import Image
from release import write_release
from safetensors.numpy import load_file

from glassworld.cli import inference, main
from glassworld.engine.loading import load_world

ROOT = Path(__file__).resolve().parents[2]


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
    assert "inference.yaml" in capsys.readouterr().err


def decoded(video: Path) -> np.ndarray:
    """The frames of a video, uint8 [N, H, W, 3]."""
    with av.open(str(video)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_play_record_leave_and_replay(tmp_path: Path) -> None:
    """The recording of a real server, replayed by the command line."""
    world, home = tmp_path / "world", tmp_path / "home"
    home.mkdir()
    flags = write_release(world)
    command = ["play", "--no-open", "--port", "0", "--device", "cpu", "--world", str(world)]
    with subprocess.Popen(
        [sys.executable, "-m", "glassworld", *command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as server:
        assert server.stdout is not None
        address = re.search(r"http://127.0.0.1:\d+/", server.stdout.readline())
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
        server.send_signal(signal.SIGINT)
        said = server.stdout.read()
        assert server.wait(30) == 0
    assert "ready" in said
    assert "Traceback" not in said

    latents = home / "latents.safetensors"
    replay = ["--actions", str(home / "actions.json"), "--save_latents", str(latents)]
    picture = ["--img_path", str(home / "picture.png"), "--output_folder", str(home)]
    assert inference([*flags[:4], *picture, *replay, "--device", "cpu"]) == 0

    script = json.loads((home / "actions.json").read_text())
    run = load_world(world / "inference.yaml", None, world / "model").generate(
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
        picture = np.asarray(Image.open(io.BytesIO(frame.picture)))
        np.testing.assert_array_equal(picture, run.frames[frame.number])
    assert [frame.number for frame in shown] == list(range(12))
