"""The check of a GPU, rehearsed with a tiny world on the CPU."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import torch

from glassworld.bench.gpu import check
from glassworld.cli import main
from tests.support.live import until


@pytest.mark.slow
def test_a_section_is_a_process_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "gpu.json"
    flags = ["--rehearse", "--json", str(path), "--only", "machine"]
    assert main(["bench", "gpu", *flags]) == 0
    figures = json.loads(path.read_text())
    assert figures["machine"]["versions"]["torch"] == torch.__version__
    assert capsys.readouterr().out.strip().endswith("done")


def test_a_failed_section_is_recorded_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def command(name: str, options: check.GpuCheckOptions, path: Path) -> list[str]:
        code = "raise RuntimeError('no memory')"
        if name == "machine":
            code = f"open({str(path)!r}, 'w').write('{{\"cores\": 2}}')"
        return [sys.executable, "-c", code]

    monkeypatch.setattr(check, "_command", command)
    path = tmp_path / "gpu.json"
    options = check.GpuCheckOptions(path, only="correctness,machine", rehearse=True)
    assert check.run_gpu_check(options)
    figures = json.loads(path.read_text())
    assert "no memory" in figures["correctness"]["error"]
    assert figures["machine"] == {"cores": 2}
    assert "failed: RuntimeError: no memory" in capsys.readouterr().out


def test_a_section_that_takes_too_long_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "MAX_SECTION_SECONDS", 0.2)
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    monkeypatch.setattr(check, "_command", lambda *_: sleep)
    path = tmp_path / "gpu.json"
    assert check.run_gpu_check(check.GpuCheckOptions(path, only="machine", rehearse=True))
    assert json.loads(path.read_text())["machine"]["error"] == "took more than 0 s"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no process groups")
def test_processes_of_a_section_that_takes_too_long_end_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "MAX_SECTION_SECONDS", 2)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    program = f"(echo started; exec sleep 600) > '{pipe}' & wait"
    monkeypatch.setattr(check, "_command", lambda *_: ["sh", "-c", program])
    with open(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as output:
        options = check.GpuCheckOptions(tmp_path / "gpu.json", only="machine", rehearse=True)
        assert check.run_gpu_check(options)
        assert output.read(100) == b"started\n"
        assert until(lambda: output.read(100) == b"")  # None while somebody could write


def test_an_unknown_section_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--rehearse", "--json", str(tmp_path / "gpu.json"), "--only", "machine,nonsense"]
    assert main(["bench", "gpu", *flags]) == 2
    assert "--only nonsense: must be one of machine" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_without_a_gpu_the_check_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "gpu"]) == 2
    assert "no CUDA device" in capsys.readouterr().err
