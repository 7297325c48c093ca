"""Batches on a Ray that counts GPUs which this machine does not have."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from glassworld.cli import main
from glassworld.folder_lock import LOCK
from tests.support.live import until
from tests.support.paths import ROOT
from tests.support.ray_gpus import ray_with_gpus
from tests.support.release import write_release

ray = pytest.importorskip("ray", reason="ray is not installed")
parquet: Any = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")

pytestmark = pytest.mark.slow


def write_jobs(folder: Path, count: int) -> Path:
    write_release(folder)
    row = json.dumps({"image": "picture.png", "frames": 3})
    path = folder / "jobs.jsonl"
    path.write_text("\n".join([row] * count), encoding="utf-8")
    return path


def batch(address: str, jobs: Path, *flags: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "glassworld", "batch", str(jobs), "--cluster", *flags],
        env=os.environ | {"PYTHONPATH": str(ROOT), "RAY_ADDRESS": address},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    )


def test_actors_of_auto_have_a_gpu_each(tmp_path: Path) -> None:
    jobs = write_jobs(tmp_path, 6)
    flags = ["--world", str(tmp_path), "--output", str(tmp_path / "out"), "--workers", "3"]
    with ray_with_gpus(2) as address, batch(address, jobs, *flags) as process:
        assert until(
            lambda: ray.available_resources().get("GPU", 0) < 2 or process.poll() is not None, 200
        )
        assert process.poll() is None
        said = process.communicate()[0]
    assert process.returncode == 0
    assert "device: a GPU for each actor; Ray sees 2, so at most 2 run at once; for more" in said
    assert said.index("device: a GPU") < said.index("6/6 jobs")
    assert "6 done, 0 failed" in said


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_device_of_a_cluster_need_not_be_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A GPU is asked of the cluster, and not of this machine."""
    jobs = write_jobs(tmp_path, 1)
    flags = ["--world", str(tmp_path), "--output", str(tmp_path / "out"), "--device"]
    assert main(["batch", str(jobs), *flags, "cuda"]) == 2
    assert "this machine has no CUDA device" in capsys.readouterr().err
    assert main(["batch", str(jobs), *flags, "gpu", "--cluster"]) == 2
    assert "device 'gpu': must be cpu, cuda or cuda:N" in capsys.readouterr().err
    with ray_with_gpus(0) as address, batch(address, jobs, *flags, "cuda") as process:
        assert "the cluster has no GPU; add one" in process.communicate()[0]
    assert process.returncode == 2


DYING = """
import os, signal, sys
from pathlib import Path
from glassworld.batch import run
from glassworld.batch.render import Renderer
from glassworld.engine.checkpoint.options import LoadOptions

class Dying(Renderer):  # kills its process after a block: always at job 2, and once at job 4
    def render(self, job):
        killed = self._folder.parent / f"killed-{job.id}"
        if job.line == 2 or (job.line == 4 and not killed.exists()):
            def die():
                with killed.open("a") as file:
                    file.write("x")
                os.kill(os.getpid(), signal.SIGKILL)
            return super().render(job, die)
        return super().render(job)

class DyingOptions(run.RenderOptions):
    def renderer(self):
        return Dying(self.load, self.folder, self.threads)

run.RenderOptions = DyingOptions
jobs, output, world = map(Path, sys.argv[1:])
load = LoadOptions(world=world, device="cpu")
print(run.run_batch(run.BatchOptions(jobs, output, 2, cluster=True, load=load)))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kills processes by a signal")
def test_job_that_kills_its_actor_fails_alone(tmp_path: Path) -> None:
    """A job whose actor died by chance is done; the next run tries the failed one again."""
    jobs, output = write_jobs(tmp_path, 6), tmp_path / "out"
    with ray_with_gpus(0) as address:
        ended = subprocess.run(
            [sys.executable, "-c", DYING, jobs, output, tmp_path],
            env=os.environ | {"PYTHONPATH": str(ROOT), "RAY_ADDRESS": address},
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=600,
        )
    assert "BatchOutcome(done=5, failed=1, interrupted=False)" in ended.stdout, ended.stderr
    assert "failed: line 2 (000002): its process died 3 times: it may lack" in ended.stdout
    assert (tmp_path / "killed-000002").read_text(encoding="utf-8") == "xxx"
    assert (tmp_path / "killed-000004").read_text(encoding="utf-8") == "x"
    states = parquet.read_table(output / "index.parquet")["state"].to_pylist()
    assert states == ["done", "failed", "done", "done", "done", "done"]
    assert [path.name for path in output.glob(".*")] == [LOCK]
    flags = ["--output", str(output), "--world", str(tmp_path), "--device", "cpu"]
    assert main(["batch", str(jobs), *flags, "--workers", "1"]) == 0
    assert parquet.read_table(output / "index.parquet")["state"].to_pylist() == ["done"] * 6
