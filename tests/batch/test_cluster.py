"""Batches on a Ray that counts GPUs which this machine does not have."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from glassworld.cli import main
from tests.support.live import until
from tests.support.paths import ROOT
from tests.support.ray_gpus import ray_with_gpus
from tests.support.release import write_release

ray = pytest.importorskip("ray", reason="ray is not installed")
pytest.importorskip("pyarrow", reason="pyarrow is not installed")

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
