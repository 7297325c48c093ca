"""The benchmark: its baseline computes the same frames, its figures are there and hang together."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny

from glassworld.bench.ceilings import measure, store
from glassworld.bench.conv3d import Conv3dLayer, with_conv3d
from glassworld.bench.measure import memory, sessions_in_turn, steady_state
from glassworld.bench.report import full_benchmark
from glassworld.errors import InputError


def test_the_baseline_makes_the_same_frames() -> None:
    world = tiny.world()
    baseline = with_conv3d(world)
    assert any(isinstance(layer, Conv3dLayer) for layer in baseline.networks.decoder.modules())
    assert not any(isinstance(layer, Conv3dLayer) for layer in world.networks.decoder.modules())
    ours, theirs = (each.generate(tiny.picture(), 6).frames for each in (world, baseline))
    assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 1


def test_steady_state() -> None:
    figures = steady_state(tiny.world(), tiny.picture(), 30)
    assert figures["blocks"] == 30
    assert figures["fps_median"] > 0
    assert figures["baseline_fps_median"] > 0
    parts = sum(figures["stages_ms"].values())
    assert 0 < parts < 1.5 * 30 * figures["block_ms_median"]
    assert all(ms > 0 for ms in figures["layer_kinds_ms"].values() if ms is not None)


def test_few_blocks_are_refused() -> None:
    with pytest.raises(InputError, match="30"):
        full_benchmark({}, 3, print)


def test_sessions_and_memory() -> None:
    world = tiny.world()
    one, two = sessions_in_turn(world, tiny.picture(), (1, 2))
    assert one["session_mb"] == two["session_mb"] > 0
    assert memory(world)["peak_memory_mb"] > memory(world)["weights_mb"] > 0


def test_ceilings_are_stored_for_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("glassworld.bench.ceilings.MATRIX", {"cpu": 64})
    monkeypatch.setattr("glassworld.bench.ceilings.COPY_MEGABYTES", {"cpu": 1})
    monkeypatch.setattr("glassworld.bench.ceilings.PICTURES", {"cpu": (1, 4, 8, 8)})
    path = store("cpu", "float32", measure("cpu", "float32"))
    stored = json.loads(path.read_text())["cpu:float32"]
    assert min(stored["matmul_gflops"], stored["copy_gbps"], stored["conv_gflops"]) > 0
