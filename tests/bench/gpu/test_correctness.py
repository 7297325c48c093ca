"""The correctness of a device, checked with the CPU as that device."""

from __future__ import annotations

import pytest

from glassworld.bench.gpu.correctness import measure_correctness


@pytest.mark.slow
def test_a_cpu_agrees_with_itself() -> None:
    figures = measure_correctness("cpu")
    assert figures["latents_max_in_spreads"] == 0
    assert figures["frames_max_of_255"] == 0
    assert max(figures["batch_max_of_255"], figures["live_max_of_255"]) <= 1
    assert figures["live_captured_max_of_255"] <= 1
    assert figures["kernels"]["frames_max_of_255"] == 0
