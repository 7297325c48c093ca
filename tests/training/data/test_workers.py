"""Processes that collect: they end with the work, with an exception and with their parent."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from glassworld.errors import InputError
from glassworld.training.data.workers import worker_map
from tests.support.live import until

SLEEPING_WORKERS = """
import multiprocessing, pathlib, sys, time
from glassworld.training.data.workers import worker_map

def sleep(number):
    pathlib.Path(sys.argv[1], f"begun-{number}").touch()
    time.sleep(60)

if __name__ == "__main__":
    with worker_map(2) as run:
        results = run(sleep, [1, 2])
        while len(list(pathlib.Path(sys.argv[1]).glob("begun-*"))) < 2:
            time.sleep(0.1)
        print(*(process.pid for process in multiprocessing.active_children()), flush=True)
        list(results)
"""


def test_worker_map_maps_in_order() -> None:
    for workers in (1, 2):
        with worker_map(workers) as run:
            assert list(run(abs, [-1, 2, -3])) == [1, 2, 3]


def test_worker_map_after_an_exception_ends_what_the_workers_do() -> None:
    began = time.monotonic()
    with suppress(ZeroDivisionError), worker_map(2) as run:
        run(time.sleep, [60, 60])
        raise ZeroDivisionError
    assert time.monotonic() - began < 30
    assert not multiprocessing.active_children()


def test_worker_map_says_that_a_worker_was_killed() -> None:
    refusal = pytest.raises(InputError, match="was killed, such as for want of memory; try fewer")
    with refusal, worker_map(2) as run:
        list(run(os._exit, [1, 1]))


@pytest.mark.skipif(sys.platform != "linux", reason="looks processes up in /proc")
@pytest.mark.slow
def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "collect.py"
    script.write_text(SLEEPING_WORKERS)
    command = [sys.executable, str(script), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        workers = [Path(f"/proc/{pid}") for pid in process.stdout.readline().decode().split()]
        assert len(workers) == 2
        process.send_signal(signal.SIGKILL)
    assert until(lambda: not any(worker.exists() for worker in workers), 60)
