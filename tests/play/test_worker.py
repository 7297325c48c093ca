"""The device's thread: what it runs with."""

from __future__ import annotations

import asyncio

import pytest
import torch

from glassworld.play.worker import DeviceThread


def threads_of_a_job() -> int:
    worker = DeviceThread()
    try:
        return asyncio.run(worker.run(torch.get_num_threads))
    finally:
        worker.close()


def test_a_core_is_left_to_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    try:
        for threads, left in ((4, 3), (2, 1), (1, 1)):
            torch.set_num_threads(threads)
            assert threads_of_a_job() == left
            assert torch.get_num_threads() == threads
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        torch.set_num_threads(2)
        assert threads_of_a_job() == 2
    finally:
        torch.set_num_threads(before)
