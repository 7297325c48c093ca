"""Computing in forked and spawned processes and in threads, at several threads of torch."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.queues import Queue
from typing import Any

import numpy as np
import pytest
import torch

from glassworld.engine.runtime.threads import using_threads
from glassworld.engine.world import World
from tests.support import tiny
from tests.support.paths import ROOT

TIMEOUT = 60.0  # seconds, of what takes one


def first_block(world: World, seed: int = 1) -> Any:
    return world.start(tiny.picture(), seed).step(world.space.press("w"))


def answer(queue: Queue[Any], world: World | None) -> None:
    """Put the first frames into the queue, and the number of threads."""
    queue.put((first_block(world or tiny.world()), torch.get_num_threads()))


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_another_process_generates_the_same_frames(method: str) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"{method}: not on this system")
    world = tiny.world()
    context: Any = multiprocessing.get_context(method)
    queue = context.Queue()
    with using_threads(2):
        expected = first_block(world)  # starts the threads that a fork loses
        process = context.Process(
            target=answer, args=(queue, world if method == "fork" else None), daemon=True
        )
        process.start()
        try:
            frames, threads = queue.get(timeout=TIMEOUT)
        finally:
            process.kill()
        assert torch.get_num_threads() == 2  # the parent keeps its own
    assert np.abs(frames.astype(int) - expected).max() <= 1
    assert threads == 1 or method == "spawn"


def test_threads_generate_the_same_frames_side_by_side() -> None:
    world = tiny.world()
    expected = [first_block(world, seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(first_block, world, seed) for seed in range(4)]
        for call, frames in zip(calls, expected, strict=True):
            assert np.abs(call.result(TIMEOUT).astype(int) - frames).max() <= 1


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_plain_fork_of_a_loaded_world_does_not_hang() -> None:
    program = (
        "import os, sys, torch, glassworld\n"
        "from PIL import Image\n"
        "torch.set_num_threads(2)\n"
        "world = glassworld.load_world()\n"
        "def step(): world.start(Image.new('RGB', (96, 64))).step(world.space.press('w'))\n"
        "step()\n"
        "child = os.fork()\n"
        "step()\n"
        "if child: sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("OMP_NUM_THREADS", None)
    subprocess.run([sys.executable, "-c", program], env=environment, timeout=TIMEOUT, check=True)
