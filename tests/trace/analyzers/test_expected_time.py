"""Measured against expected times, of synthetic runs."""

import pytest

from glassworld.trace import analyze
from glassworld.trace.analyzers.expected_time import ExpectedTime, expected_table, reference_note
from tests.support.traces import engine_run, write


def gflop_of(row: ExpectedTime) -> float:
    assert row.gflop is not None
    return row.gflop


def test_expected_table_has_every_row_of_the_reference_breakdown(run):
    analysis = analyze(run())
    rows = {row.row.strip(): row for row in expected_table(analysis)}
    assert list(rows) == [
        "data preparation",
        "inference loop",
        "cache initialization",
        "condition encode",
        "denoising",
        "cache update",
        "VAE decode",
        "post-processing",
    ]
    assert 0.7 < 3 * gflop_of(rows["cache update"]) / gflop_of(rows["denoising"]) < 1
    inner = ("cache initialization", "condition encode", "denoising", "VAE decode", "cache update")
    parts = sum(gflop_of(rows[name]) for name in inner)
    assert rows["inference loop"].gflop == pytest.approx(parts)
    assert "25%" in reference_note(analysis)


def test_expected_table_peak_rates_turn_cost_into_time(run, store_peak_rates):
    store_peak_rates(matmul=100.0, conv=50.0, copy=1e6)
    rows = {row.row.strip(): row for row in expected_table(analyze(run()))}
    assert rows["denoising"].expected_ms == pytest.approx(gflop_of(rows["denoising"]) * 10)
    decode = rows["VAE decode"]
    assert decode.expected_ms is not None
    assert decode.expected_ms == pytest.approx(gflop_of(decode) * 20, rel=0.01)
    assert decode.expected_ms < gflop_of(decode) * 20  # its attention is a product
    assert all(row.expected_ms is not None for row in rows.values())


def test_expected_table_of_a_part_of_a_run_has_shares_of_its_whole(tmp_path):
    """Recorded from a block on, it has the loop's parts but not the loop's own tag."""
    part = [e for e in engine_run() if not e["name"].startswith(("1", "2_", "2.1_", "3_"))]
    rows = {row.row.strip(): row for row in expected_table(analyze(write(tmp_path / "p", part)))}
    inner = [rows[name] for name in ("denoising", "VAE decode", "cache update")]
    assert sum(row.share for row in inner) == pytest.approx(1)
    assert rows["inference loop"].measured_ms == pytest.approx(sum(r.measured_ms for r in inner))
    assert rows["inference loop"].share == 1
