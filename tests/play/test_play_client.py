"""The example client: its frames, and one line for whatever keeps it from playing."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.support.live import RATE, LiveServer, play_client


def test_example_saves_the_frames(
    live: LiveServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "walks" / "first"
    arguments = ["--url", live.ws, "--output", str(folder), "--frames", "10"]
    assert play_client.main(arguments) == 0
    assert [path.name for path in sorted(folder.iterdir())] == [f"{n:04d}.png" for n in range(10)]
    with Image.open(folder / "0009.png") as image:
        assert image.size == (48, 32)
    assert "saved 10 frames" in capsys.readouterr().out


@pytest.mark.parametrize("url", ["ws://127.0.0.1:9/ws", "http://127.0.0.1", "ws://", "nowhere"])
def test_example_without_a_server_is_one_line_and_exit_code_2(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert play_client.main(["--url", url, "--output", str(tmp_path / "frames")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"play_client: --url {url}: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "frames").exists()


def test_example_names_the_folder_it_cannot_write(
    live: LiveServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("taken", encoding="utf-8")
    assert play_client.main(["--url", live.ws, "--output", str(tmp_path / "file")]) == 2
    assert "--output" in capsys.readouterr().err


def test_example_says_that_the_server_is_full(capsys: pytest.CaptureFixture[str]) -> None:
    with LiveServer(slots=1, frame_rate=RATE) as live, live.client():
        assert play_client.main(["--url", live.ws]) == 2
    assert "the server is full" in capsys.readouterr().err


@pytest.mark.parametrize("frames", ["0", "-3", "many"])
def test_example_refuses_a_number_of_frames_that_is_none(
    frames: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        play_client.main([f"--frames={frames}"])
    assert "give 1 or more" in capsys.readouterr().err
