"""Variants of matmuls are compared with float32."""

from __future__ import annotations

import json

from glassworld.bench.gpu.context import BenchContext
from glassworld.bench.gpu.matmul_variants import compare_matmuls


def test_matmuls_are_compared_with_float32(context: BenchContext) -> None:
    figures = compare_matmuls(context)
    assert [variants.pop("shape") for variants in figures.values()] == [
        [18, 32, 96],
        [18, 32, 32],
        [18, 32, 48],
        [18, 48, 32],
    ]
    assert figures["widen"].keys() - figures["narrow"].keys() == {"gelu after it", "gelu in it"}
    rows = [row for variants in figures.values() for row in variants.values()]
    timed = [row for row in rows if "error" not in row]
    assert len(timed) >= 4  # not every torch has 8-bit matmuls on a CPU
    assert all(row["us"] > 0 and row["distance_in_spreads"] < 0.1 for row in timed)
    json.dumps(figures)
