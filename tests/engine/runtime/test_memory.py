"""Memory: what is freed is kept, and GPU segments grow."""

from __future__ import annotations

import os
import sys
from statistics import median

import pytest
import torch

from glassworld.engine.runtime.memory import enlarge_device_memory, keep_freed_memory


@pytest.mark.skipif(sys.platform != "linux", reason="the C library is not glibc")
def test_keep_freed_memory_reuses_the_pages() -> None:
    import resource

    def faults_of_a_tensor() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.empty(10 * 2**20).fill_(1)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    keep_freed_memory()
    faults = [faults_of_a_tensor() for _ in range(40)]
    # The heap grows for the first few, and now and then later if other tests left holes in it.
    assert median(faults[20:]) < 100  # a tensor has 10240 pages


@pytest.mark.parametrize("own", [{}, {"PYTORCH_CUDA_ALLOC_CONF": "backend:native"}])
def test_enlarge_device_memory_keeps_a_setting_of_the_user(
    own: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = dict(own)
    monkeypatch.setattr(os, "environ", environment)
    monkeypatch.setattr(sys, "platform", "linux")
    enlarge_device_memory()
    assert environment == (own or {"PYTORCH_ALLOC_CONF": "expandable_segments:True"})
