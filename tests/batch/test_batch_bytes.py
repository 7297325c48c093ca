"""Twenty jobs, one broken, interrupted once: the same 19 files, whoever renders them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from glassworld.folder_lock import LOCK
from tests.support.paths import ROOT
from tests.support.release import write_release

parquet: Any = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")

BROKEN = 7


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release")
    write_release(folder)
    (folder / "broken.png").write_bytes((folder / "picture.png").read_bytes()[:80])
    rows = [
        {
            "image": "broken.png" if index == BROKEN else "picture.png",
            "actions": f"w*{9 + 12 * (index % 3)}",
            "seed": index,
            "id": f"job-{index:02}",
        }
        for index in range(20)
    ]
    (folder / "jobs.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder


def start(folder: Path, output: Path, *flags: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "glassworld", "batch", str(folder / "jobs.jsonl")]
    command += ["--output", str(output), "--world", str(folder), "--device", "cpu", *flags]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("OMP_NUM_THREADS", None)
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    )


def videos(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in output.iterdir() if path.suffix == ".mp4"}


def render_interrupted(folder: Path, output: Path, *flags: str) -> dict[str, bytes]:
    """Press Ctrl-C once some videos are there, and run again; return the videos."""
    with start(folder, output, *flags) as process:
        while process.poll() is None and not (output.is_dir() and len(videos(output)) >= 3):
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[0]
    if process.returncode == 130:  # not where all were done before the signal came
        assert "interrupted; what is done is kept" in said
    with start(folder, output, *flags) as process:
        said = process.communicate(timeout=120)[0]
    assert process.returncode == 1, said
    assert "19 done, 1 failed, 0 pending" in said
    assert f"failed: line {BROKEN + 1} (job-{BROKEN:02}): " in said
    states = parquet.read_table(output / "index.parquet")["state"].to_pylist()
    assert states.count("done") == 19
    assert [path.name for path in output.iterdir() if path.name.startswith(".")] == [LOCK]
    return videos(output)


@pytest.mark.slow
def test_interrupted_batches_write_the_same_bytes_by_one_process_and_by_several(
    folder: Path, tmp_path: Path
) -> None:
    one = render_interrupted(folder, tmp_path / "one", "--workers", "1")
    assert len(one) == 19
    assert render_interrupted(folder, tmp_path / "two", "--workers", "2") == one


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed")
def test_interrupted_batch_writes_the_same_bytes_on_ray(folder: Path, tmp_path: Path) -> None:
    with start(folder, tmp_path / "one", "--workers", "1") as process:
        process.communicate(timeout=120)
    flags = ("--cluster", "--workers", "2")
    assert render_interrupted(folder, tmp_path / "ray", *flags) == videos(tmp_path / "one")


@pytest.mark.slow
def test_killed_worker_fails_its_job_alone(folder: Path, tmp_path: Path) -> None:
    killer = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from glassworld.batch import executors\n"
        "from glassworld.batch.render import Renderer\n"
        "from glassworld.batch.run import BatchOptions, run_batch\n"
        "from glassworld.engine.checkpoint.options import LoadOptions\n"
        "class Dying(Renderer):\n"
        "    def render(self, job, stopped):\n"
        "        if job.id == 'job-04':\n"
        "            os._exit(9)\n"
        "        return super().render(job, stopped)\n"
        "executors.Renderer = Dying\n"
        "if __name__ == '__main__':\n"
        "    jobs, output, world = map(Path, sys.argv[1:])\n"
        "    load = LoadOptions(world=world, device='cpu')\n"
        "    print(run_batch(BatchOptions(jobs, output, 2, load=load)))\n"
    )
    script = tmp_path / "killer.py"
    script.write_text(killer, encoding="utf-8")
    result = subprocess.run(
        [sys.executable, script, folder / "jobs.jsonl", tmp_path / "out", folder],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert "BatchOutcome(done=18, failed=2, interrupted=False)" in result.stdout, result.stderr
    assert "(job-04): its process ended with exit code 9" in result.stdout
