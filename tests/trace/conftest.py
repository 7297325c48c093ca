"""Fixtures of the trace tests."""

import json
from contextlib import contextmanager

import pytest

from glassworld.trace.reading import columns, source
from glassworld.trace.timeline import chunks, merged
from tests.support.traces import CONFIG, engine_run, write


@pytest.fixture
def run(tmp_path):
    """Return a function that writes a synthetic run of the engine and returns its path."""

    def make(name="run.json", config=CONFIG, **options):
        return write(tmp_path / name, engine_run(**options), config=config)

    return make


@pytest.fixture
def small_pieces(monkeypatch):
    """Read traces a few kilobytes at a time."""
    monkeypatch.setattr(source, "PIECE_BYTES", 5_000)


@pytest.fixture
def small_chunks():
    """Return a context in which a trace is read in small pieces and analyzed in small chunks."""

    @contextmanager
    def use(rows=60, kept=100):
        with pytest.MonkeyPatch.context() as small:
            small.setattr(source, "PIECE_BYTES", 2_000)
            small.setattr(columns, "IN_MEMORY_ROWS", rows // 3)
            small.setattr(columns, "SLICE_ROWS", rows // 2)
            small.setattr(chunks, "CHUNK_ROWS", rows)
            small.setattr(merged, "SAMPLED_ROWS", kept)
            yield

    return use


@pytest.fixture
def store_peak_rates(tmp_path, monkeypatch):
    """Return a function that stores peak rates for float32: GFLOP/s of matmuls and convs, GB/s."""

    def store(matmul=100.0, conv=50.0, copy=10.0, machine=None, device="cpu"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        (tmp_path / "glassworld").mkdir(exist_ok=True)
        measured = {"matmul_gflops": matmul, "conv_gflops": conv, "copy_gbps": copy}
        stored = {f"{device}:float32": measured | ({"machine": machine} if machine else {})}
        (tmp_path / "glassworld" / "ceilings.json").write_text(json.dumps(stored), encoding="utf-8")

    return store


@pytest.fixture(autouse=True)
def no_stored_peak_rates(tmp_path, monkeypatch):
    """Hide the peak rates that were measured on this machine."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
