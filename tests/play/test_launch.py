"""`glassworld play` in a process of its own, as users start it."""

from __future__ import annotations

import gc
import io
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import urllib.request
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file
from websockets.exceptions import InvalidStatus

from glassworld.cli import main
from glassworld.engine.checkpoint.load import load_world
from glassworld.play.launch import exempt_from_garbage_collection
from tests.support.live import PlayClient
from tests.support.paths import ROOT
from tests.support.release import write_release


def test_port_in_use_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert main(["play", "--no-open", "--port", port]) == 2
    error = capsys.readouterr().err
    assert port in error
    assert "--port" in error
    assert error.count("\n") == 1


def test_folder_without_a_world_fails_before_an_address_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["play", "--no-open", "--port", "0", "--world", str(tmp_path)]) == 2
    output = capsys.readouterr()
    assert "inference.yaml" in output.err
    assert output.out == ""


def test_foreign_address_names_the_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["play", "--no-open", "--host", "203.0.113.1", "--port", "0"]) == 2
    assert "--host" in capsys.readouterr().err


def test_exempt_objects_are_not_collected_and_later_ones_are() -> None:
    class Ring:
        def __init__(self) -> None:
            self.itself = self

    early, gone = Ring(), weakref.ref(Ring())
    try:
        exempt_from_garbage_collection()
        assert gone() is None
        assert not any(early is item for item in gc.get_objects())
        later = weakref.ref(Ring())
        gc.collect()
        assert later() is None
    finally:
        gc.unfreeze()
    assert any(early is item for item in gc.get_objects())


@pytest.mark.slow
def test_other_address_requires_the_printed_token(tmp_path: Path) -> None:
    write_release(tmp_path / "world")
    with playing(tmp_path / "world", "--host", "0.0.0.0") as (server, first_line):
        match = re.search(r"http://\S+:(\d+)/\?token=(\S+)", first_line)
        assert match is not None
        address = f"ws://127.0.0.1:{match[1]}/ws"
        with pytest.raises(InvalidStatus, match="403"), PlayClient(address):
            pass
        with PlayClient(f"{address}?token={match[2]}") as client:
            assert " --world PATH/TO/world " in client.hello["replay"]
            client.start()
            assert len(list(client.frames(9))) == 9
        assert stop(server).count("ready") == 1


@contextmanager
def playing(world: Path, *flags: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run `glassworld play` in a process of its own; yield it and the first line it prints."""
    command = ["play", "--no-open", "--port", "0", "--device", "cpu", "--world", str(world), *flags]
    with subprocess.Popen(
        [sys.executable, "-m", "glassworld", *command],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(world.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    ) as server:
        assert server.stdout is not None
        try:
            yield server, server.stdout.readline()
        finally:
            server.kill()


def stop(server: subprocess.Popen[str], codes: Sequence[int] = (0,)) -> str:
    """Stop the server with Ctrl-C and return the rest of its output."""
    if sys.platform == "win32":
        pytest.skip("Windows sends Ctrl-C to whole groups of processes")
    server.send_signal(signal.SIGINT)
    assert server.stdout is not None
    output = server.stdout.read()
    assert server.wait(30) in codes
    assert "Traceback" not in output
    return output


@pytest.mark.slow
@pytest.mark.parametrize("blocks", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_ctrl_c_during_a_capture_ends_the_server_normally(tmp_path: Path, blocks: int) -> None:
    write_release(tmp_path / "world")
    with playing(tmp_path / "world") as (server, first_line):
        address = re.search(r"http(://127.0.0.1:\d+/)", first_line)
        assert address is not None
        with PlayClient(f"ws{address[1]}ws") as client:
            client.start()
            client.send("capture", blocks=8)
            list(client.frames(12 * blocks))
            assert "init callback" not in stop(server)


WHILE_STARTING = (0, 130)
"""Exit codes of Ctrl-C before or after the server listens to it."""


def record(client: PlayClient) -> None:
    client.start()
    client.send("record", on=True)
    list(client.frames(24))


def stop_recording(client: PlayClient) -> None:
    record(client)
    client.send("record", on=False)


def lose_connection(client: PlayClient) -> None:
    record(client)
    client.socket.socket.shutdown(socket.SHUT_RDWR)


def export_capture(client: PlayClient) -> None:
    client.start()
    client.send("capture", blocks=1)
    list(client.frames(24))


def upload(client: PlayClient) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (1500, 1500, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "JPEG")
    client.start()
    client.socket.send(file.getvalue())
    list(client.frames(2))


@pytest.mark.slow
@pytest.mark.parametrize(
    "reach_state", [None, record, stop_recording, lose_connection, export_capture, upload]
)
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_server_ends_in_any_state_and_leaves_no_files(
    tmp_path: Path, reach_state: Callable[[PlayClient], None] | None, end: signal.Signals
) -> None:
    write_release(tmp_path / "world")
    with playing(tmp_path / "world") as (server, first_line), ExitStack() as stack:
        if reach_state is not None:
            address = re.search(r"http(://127.0.0.1:\d+/)", first_line)
            assert address is not None
            reach_state(stack.enter_context(PlayClient(f"ws{address[1]}ws")))
        if end == signal.SIGINT:
            stop(server, WHILE_STARTING if reach_state is None else (0,))
        else:
            server.kill()
    if end == signal.SIGKILL:
        with playing(tmp_path / "world") as (next_server, _):  # removes what is left
            stop(next_server, WHILE_STARTING)
    assert [path.name for path in tmp_path.iterdir()] == ["world"]


def decoded(video: Path) -> np.ndarray:
    """Return the frames of a video, uint8 [N, H, W, 3]."""
    with av.open(str(video)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.mark.slow
def test_recording_of_a_real_server_is_replayed_by_the_command_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, home = tmp_path / "my world", tmp_path / "home"
    home.mkdir()
    write_release(world)
    with playing(world) as (server, first_line):
        address = re.search(r"http://127.0.0.1:\d+/", first_line)
        assert address is not None
        with PlayClient(address[0].replace("http", "ws") + "ws") as client:
            command = shlex.split(client.hello["replay"])
            client.send("pause")  # so that the recording starts with the session
            client.start(seed=9)
            client.send("record", on=True)
            client.hold("w")
            client.send("resume")
            shown = list(client.frames(12))
            client.send("pause")
            client.send("record", on=False)
            recording: dict[str, Any] = {"on": True}
            while recording["on"]:
                recording = client.wait_for("recording")
        names = {"video": "walk.mp4", "actions": "walk.json", "picture": "picture.png"}
        for key, name in names.items():
            with urllib.request.urlopen(
                address[0].rstrip("/") + recording[key], timeout=30
            ) as file:
                (home / name).write_bytes(file.read())
        assert "ready" in stop(server)

    latents = home / "latents.safetensors"
    monkeypatch.chdir(home)
    assert command[0] == "glassworld"
    assert main([*command[1:], "--save-latents", str(latents), "--output-folder", "."]) == 0

    script = json.loads((home / "walk.json").read_text(encoding="utf-8"))
    run = load_world(world).generate(
        home / "picture.png",
        (len(script["keyboard"]) - 1) // 4 + 1,
        script["seed"],
        home / "walk.json",
        noise="blocks",
    )
    videos = [decoded(home / name) for name in ("walk.mp4", "demo.mp4")]
    assert videos[0].shape == videos[1].shape  # but x264's bits differ between runs
    assert np.abs(np.subtract(*videos, dtype=np.int16)).mean() < 3
    (replayed,) = load_file(latents).values()
    np.testing.assert_array_equal(replayed, run.latents.numpy())
    for frame in shown:
        pixels = np.asarray(Image.open(io.BytesIO(frame.image)))
        np.testing.assert_array_equal(pixels, run.frames[frame.number])
    assert [frame.number for frame in shown] == list(range(12))
