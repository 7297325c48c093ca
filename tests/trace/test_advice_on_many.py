"""Advice on very many layers, names or blocks takes time and memory in proportion."""

import time
import tracemalloc
from itertools import product
from string import ascii_lowercase

import numpy as np
import pytest
from conftest import Clock, write

from glassworld.trace import analyze
from glassworld.trace.advice import advise
from glassworld.trace.blocks import drift
from glassworld.trace.rules_run import median_of_others


@pytest.mark.parametrize("seed", range(5))
def test_the_median_of_the_others_is_that_of_the_values_without_one(seed):
    chance = np.random.default_rng(seed)
    group, values = chance.integers(0, 12, 40), chance.integers(0, 9, 40) / 4
    medians = median_of_others(group, values)
    for i in range(40):
        others = np.delete(values, i)[np.delete(group, i) == group[i]]
        assert medians[i] == (np.median(others) if len(others) else np.inf)


@pytest.mark.parametrize(("layer", "length"), [("DiT_Layer_{}", 3), ("outer", 4)])
def test_thousands_of_layers_or_of_names_take_no_quadratic_time(tmp_path, layer, length):
    """Every layer was held against a table of all layers and names, every name against all tags."""
    clock = Clock()
    with clock.tag("DiffusionModel_Forward"):
        for number, letters in enumerate(product(ascii_lowercase[:12], repeat=length)):
            with clock.tag(layer.format(number)), clock.tag("part_" + "".join(letters)):
                clock.wait(100)
            clock.wait(1)
    analysis = analyze(write(tmp_path / "many.json", clock.events))
    start = time.process_time()
    advise(analysis)
    assert time.process_time() - start < 2


def test_the_drift_of_thousands_of_blocks_takes_little_memory(tmp_path):
    """All pairs of them would be hundreds of megabytes."""
    clock = Clock()
    for block in range(4000):
        with clock.tag(f"2.3_Block_{block}"), clock.tag(f"2.3.{block}_Denoising_Step_0_t1000"):
            clock.wait(100 + block)
    analysis = analyze(write(tmp_path / "long.json", clock.events))
    tracemalloc.start()
    growth = drift(analysis)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert growth == pytest.approx(1 / 2100, rel=0.001)
    assert peak < 50e6
