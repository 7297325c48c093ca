"""Advice on very many layers, names or blocks takes work and memory in proportion."""

import tracemalloc
from itertools import product
from string import ascii_lowercase

import pytest

from glassworld.trace import analyze
from glassworld.trace.analyzers.blocks import block_drift
from glassworld.trace.rules.rule import advise
from glassworld.trace.timeline.tag_tree import TagTree
from tests.support.traces import CpuTrace, write


def many(tmp_path, layer, length):
    """Analyze a trace in which every instance of `layer` has a part of its own name."""
    clock = CpuTrace()
    with clock.tag("DiffusionModel_Forward"):
        for number, letters in enumerate(product(ascii_lowercase[:12], repeat=length)):
            with clock.tag(layer.format(number)), clock.tag("part_" + "".join(letters)):
                clock.wait(100)
            clock.wait(1)
    return analyze(write(tmp_path / "many.json", clock.events))


def peak_bytes(work):
    tracemalloc.start()
    result = work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return result, peak


@pytest.mark.slow
def test_thousands_of_layers_are_held_against_no_table_of_layers_and_names(tmp_path):
    analysis = many(tmp_path, "DiT_Layer_{}", 3)
    _, peak = peak_bytes(lambda: advise(analysis))
    assert peak < 1728 * 1728 * 8 / 2  # half of such a table


def test_thousands_of_names_are_not_each_looked_for_among_all_tags(tmp_path, monkeypatch):
    analysis = many(tmp_path, "outer", 3)
    looked_for = []
    where = TagTree.where

    def counted(tree, pattern):
        looked_for.append(pattern)
        return where(tree, pattern)

    monkeypatch.setattr(TagTree, "where", counted)
    advise(analysis)
    assert len(looked_for) < 300  # of 1,730 names


def test_the_drift_of_thousands_of_blocks_takes_little_memory(tmp_path):
    """All pairs of them would be hundreds of megabytes."""
    clock = CpuTrace()
    for block in range(4000):
        with clock.tag(f"2.3_Block_{block}"), clock.tag(f"2.3.{block}_Denoising_Step_0_t1000"):
            clock.wait(100 + block)
    analysis = analyze(write(tmp_path / "long.json", clock.events))
    growth, peak = peak_bytes(lambda: block_drift(analysis))
    assert growth == pytest.approx(1 / 2100, rel=0.001)
    assert peak < 50e6
