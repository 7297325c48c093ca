"""Fixtures of the trace tests."""

import json

import pytest

from glassworld.trace.reading import source
from tests.support.traces import CONFIG, engine_run, write


@pytest.fixture
def run(tmp_path):
    """Writes a synthetic run of the engine and returns its path."""

    def make(name="run.json", config=CONFIG, **options):
        return write(tmp_path / name, engine_run(**options), config=config)

    return make


@pytest.fixture
def small_pieces(monkeypatch):
    """Has traces read a few kilobytes at a time."""
    monkeypatch.setattr(source, "PIECE_BYTES", 5_000)


@pytest.fixture
def ceilings(tmp_path, monkeypatch):
    """Stores ceilings for float32 on the CPU: GFLOP/s of products and convolutions, GB/s."""

    def store(matmul=100.0, conv=50.0, copy=10.0, machine=None, device="cpu"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        (tmp_path / "glassworld").mkdir(exist_ok=True)
        measured = {"matmul_gflops": matmul, "conv_gflops": conv, "copy_gbps": copy}
        stored = {f"{device}:float32": measured | ({"machine": machine} if machine else {})}
        (tmp_path / "glassworld" / "ceilings.json").write_text(json.dumps(stored))

    return store


@pytest.fixture(autouse=True)
def no_ceilings(tmp_path, monkeypatch):
    """Whatever was measured on this machine is no part of a test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
