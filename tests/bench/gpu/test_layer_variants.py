"""Variants of attention, convolutions and decoding are all measured."""

from __future__ import annotations

import json

import pytest

from glassworld.bench.gpu.context import BenchContext
from glassworld.bench.gpu.layer_variants import (
    compare_attention,
    compare_convolutions,
    compare_decoders,
)


def test_attention_backends_are_timed(context: BenchContext) -> None:
    figures = compare_attention(context)
    assert figures["self"].keys() == {"FLASH_ATTENTION", "MATH"}
    json.dumps(figures)


@pytest.mark.slow
def test_decoders_make_the_same_frames_with_kernels(context: BenchContext) -> None:
    figures = compare_decoders(context)
    assert figures["kernels_difference_of_255"] <= 1
    assert min(figures["plain_ms"], figures["kernels_ms"], figures["tiny_ms"]) > 0


def test_every_convolution_of_the_decoder_is_timed(context: BenchContext) -> None:
    figures = compare_convolutions(context)
    causal = [tuple(row["shape"]) for row in figures.pop("causal")]
    assert causal[0] == (16, 16, 1, 4, 6)
    assert causal[-1] == (4, 3, 4, 32, 48)
    assert len(causal) == len(set(causal)) == 6
    assert [row["shape"] for row in figures.values()] == [
        [16, 8, 2, 4, 6],
        [16, 8, 4, 8, 12],
        [8, 4, 4, 16, 24],
    ]
    assert all(row["four_small_ms"] > 0 for row in figures.values())
