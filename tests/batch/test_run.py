"""Batches in one process: what is missing is rendered, and failures are kept apart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from glassworld.batch.executors import InProcess
from glassworld.batch.render import JobResult, State
from glassworld.batch.run import (
    BatchOptions,
    BatchOutcome,
    BatchProgress,
    format_seconds,
    run_batch,
)
from glassworld.cli import main
from glassworld.engine.checkpoint.options import LoadOptions
from glassworld.errors import InputError
from glassworld.files import DiskFullError
from glassworld.folder_lock import LOCK
from tests.support.disk import fill, small_disk
from tests.support.live import until
from tests.support.paths import ROOT
from tests.support.release import write_release

parquet: Any = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release")
    write_release(folder)
    (folder / "broken.png").write_bytes((folder / "picture.png").read_bytes()[:80])
    return folder


def write_jobs(folder: Path, count: int, broken: int | None = None) -> Path:
    rows = [
        {"image": "broken.png" if index == broken else "picture.png", "seed": index, "frames": 3}
        for index in range(count)
    ]
    path = folder / "jobs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def options(folder: Path, output: Path, jobs: int, broken: int | None = None) -> BatchOptions:
    load = LoadOptions(world=folder, device="cpu")
    return BatchOptions(write_jobs(folder, jobs, broken), output, workers=1, load=load)


def rows(output: Path) -> list[dict[str, Any]]:
    table: list[dict[str, Any]] = parquet.read_table(output / "index.parquet").to_pylist()
    return table


def counting(patch: pytest.MonkeyPatch, act: Callable[[int], None] = lambda _: None) -> list[str]:
    """Note the jobs that are rendered; `act` is called with their number first."""
    rendered: list[str] = []
    render = InProcess.run

    def run(self: InProcess, jobs: Any) -> Any:
        for result in render(self, jobs):
            rendered.append(result.id)
            yield result
            act(len(rendered))

    patch.setattr(InProcess, "run", run)
    return rendered


def test_failed_job_does_not_stop_the_others(folder: Path, tmp_path: Path) -> None:
    console = Console(file=StringIO(), width=200)
    outcome = run_batch(options(folder, tmp_path / "out", 3, broken=1), console)
    assert outcome == BatchOutcome(2, 1, False)
    first, second, third = rows(tmp_path / "out")
    assert (first["state"], first["video"], first["pixel_frames"]) == ("done", "000001.mp4", 9)
    assert first["seconds"] > 0
    assert (second["state"], second["video"]) == ("failed", None)
    assert "broken.png" in second["error"]
    assert third["seed"] == 2
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"000001.mp4", "000003.mp4", "index.parquet", LOCK}
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "failed: line 2 (000002): " in said
    assert "2 done, 1 failed, 0 pending" in said


def test_second_run_renders_what_is_missing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = options(folder, tmp_path, 3, broken=1)
    run_batch(batch)
    before = (tmp_path / "000001.mp4").stat().st_mtime_ns
    (tmp_path / "000003.mp4").unlink()
    rendered = counting(monkeypatch)
    outcome = run_batch(options(folder, tmp_path, 4))
    assert rendered == ["000002", "000003", "000004"]
    assert outcome == BatchOutcome(4, 0, False)
    assert (tmp_path / "000001.mp4").stat().st_mtime_ns == before
    assert run_batch(replace(batch, jobs=write_jobs(folder, 4))) == outcome
    assert len(rendered) == 3


def test_interrupted_batch_keeps_what_is_done(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(number: int) -> None:
        if number == 2:
            (tmp_path / ".000003.1.mp4").touch()  # as of a renderer that was killed
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        counting(patch, interrupt)
        assert run_batch(options(folder, tmp_path, 4)) == BatchOutcome(2, 0, True)
    assert [row["state"] for row in rows(tmp_path)] == ["done", "done", "pending", "pending"]
    assert [path.name for path in tmp_path.glob(".*")] == [LOCK]
    rendered = counting(monkeypatch)
    assert run_batch(options(folder, tmp_path, 4)) == BatchOutcome(4, 0, False)
    assert rendered == ["000003", "000004"]


def test_full_disk_ends_the_batch_and_keeps_what_is_done(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other jobs would be rendered for nothing, all night."""
    console, out = Console(file=StringIO(), width=200), tmp_path / "disk" / "out"
    batch = options(folder, out, 5)
    rows_of_jobs = [{"image": "picture.png", "frames": 30}] * 5
    batch.jobs.write_text("\n".join(map(json.dumps, rows_of_jobs)), encoding="utf-8")

    def leave_room_for_the_index(number: int) -> None:
        if number == 2:
            filler = fill(tmp_path / "disk")
            os.truncate(filler, filler.stat().st_size - 24 * 1024)

    rendered = counting(monkeypatch, leave_room_for_the_index)
    with small_disk(tmp_path / "disk", 1000):
        with pytest.raises(
            DiskFullError, match=r"000003\.mp4: cannot be written: the disk is full"
        ):
            run_batch(batch, console)
        assert (out / "000001.mp4").stat().st_size > 24 * 1024
        assert [row["state"] for row in rows(out)] == ["done"] * 2 + ["pending"] * 3
        names = {path.name for path in out.iterdir()}
        assert names == {"000001.mp4", "000002.mp4", "index.parquet", LOCK}
    assert rendered == ["000001", "000002", "000003"]
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "2 done, 0 failed, 3 pending" in said
    assert "run the same command again to render what is missing" in said


def test_second_run_into_a_folder_is_refused_while_the_first_one_runs(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, refused = options(folder, tmp_path, 3), []
    draft = tmp_path / ".000003.1.mp4"  # the second run would remove it

    def run_again(number: int) -> None:
        draft.touch()
        with pytest.raises(InputError, match="another batch writes there; wait until") as error:
            run_batch(batch)
        assert str(error.value).startswith(f"{tmp_path}: ")
        refused.append(draft.exists())

    counting(monkeypatch, run_again)
    assert run_batch(batch) == BatchOutcome(3, 0, False)
    assert refused == [True] * 3
    assert run_batch(batch) == BatchOutcome(3, 0, False)


@pytest.mark.slow
def test_killed_run_blocks_its_folder_no_longer(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its workers, which end later, do not hold the lock."""
    many = tmp_path / "many.jsonl"
    row = json.dumps({"image": str(folder / "picture.png"), "frames": 30})
    many.write_text("\n".join([row] * 200), encoding="utf-8")
    output = tmp_path / "out"
    flags = ["--output", str(output), "--world", str(folder), "--device", "cpu", "--workers"]
    running = subprocess.Popen(
        [sys.executable, "-m", "glassworld", "batch", str(many), *flags, "2"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,  # its semaphores are reported as left behind
    )
    with running:
        try:
            assert until(lambda: any(output.glob("0*.mp4")), 120)
            one = ["batch", str(write_jobs(folder, 1)), *flags, "1"]
            assert main(one) == 2
            assert f"{output}: another batch writes there" in capsys.readouterr().err
            assert running.poll() is None
        finally:
            running.kill()
    assert main(one) == 0


def test_lock_that_cannot_be_taken_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / LOCK).mkdir()
    with pytest.raises(InputError, match=r"\.lock: cannot be locked .*; check its owner, or"):
        run_batch(options(folder, tmp_path, 1))


def test_progress_says_how_long_the_rest_will_take(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 30.0, 35.0, 90.0])
    monkeypatch.setattr("glassworld.batch.run.time.monotonic", lambda: next(clock))
    console = Console(file=StringIO(), width=200)
    progress = BatchProgress(console, 3)
    states: tuple[State, ...] = ("done", "failed", "done")
    for state in states:
        progress.add(JobResult("a", 1, state))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines == ["1/3 jobs  1 min 00 s left", "3/3 jobs  0 s left, 1 failed"]
    assert format_seconds(3725) == "1 h 02 min"


def test_malformed_row_starts_nothing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = folder / "bad.jsonl"
    jobs.write_text('{"image": "picture.png"}\n{"image": 3}', encoding="utf-8")
    flags = ["--world", str(folder), "--device", "cpu", "--output", str(tmp_path / "out")]
    assert main(["batch", str(jobs), *flags]) == 2
    assert "bad.jsonl: line 2: image: Expected `str`, got `int`" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("device", ["cuda:0", "cuda:1"])
def test_number_of_a_gpu_is_refused_on_a_cluster(
    folder: Path, tmp_path: Path, device: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--world", str(folder), "--output", str(tmp_path / "out"), "--cluster"]
    assert main(["batch", str(write_jobs(folder, 1)), *flags, "--device", device]) == 2
    assert capsys.readouterr().err == (
        f"error: device '{device}': Ray gives each worker a GPU of its own; use device cuda\n"
    )
    assert not (tmp_path / "out").exists()


def test_folder_with_another_index_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "index.parquet").write_bytes(b"PAR?")
    with pytest.raises(InputError, match="not a readable index"):
        run_batch(options(folder, tmp_path, 1))
    pyarrow: Any = pytest.importorskip("pyarrow")
    parquet.write_table(pyarrow.table({"a": [1]}), tmp_path / "index.parquet")
    with pytest.raises(InputError, match="not the index of a batch"):
        run_batch(options(folder, tmp_path, 1))


@pytest.mark.parametrize(
    ("module", "flags", "extra"), [("pyarrow", [], "batch"), ("ray", ["--cluster"], "cluster")]
)
def test_missing_extra_is_named(
    folder: Path,
    tmp_path: Path,
    module: str,
    flags: list[str],
    extra: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("glassworld.batch.run", "glassworld.batch.index", "glassworld.batch.cluster"):
        monkeypatch.delitem(__import__("sys").modules, name, raising=False)
    monkeypatch.setitem(__import__("sys").modules, module, None)
    jobs = write_jobs(folder, 1)
    command = ["batch", str(jobs), "--output", str(tmp_path), "--world", str(folder), *flags]
    assert main(command) == 2
    assert f"pip install 'glassworld[{extra}]'" in capsys.readouterr().err
