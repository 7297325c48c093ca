"""Rows that tie stand in the order of their names, however the file or its chunks are ordered."""

from dataclasses import asdict

import pytest

from glassworld.trace import analyze
from glassworld.trace.analyzers.breakdown import slowest_tags, stage_shares
from glassworld.trace.analyzers.compare import compare_runs
from glassworld.trace.analyzers.execution import slow_parts
from glassworld.trace.analyzers.operators import kernel_rows, operator_rows
from glassworld.trace.rules.rule import advise
from glassworld.trace.timeline.merged import MergedAnalysis
from glassworld.trace.timeline.rows import exact_ms, largest_first
from tests.support.traces import GpuTrace, analysis_json, near, write

NAMES = "cabd"
SHUFFLED = ("cabd", "dbac", "bdca")


def tied_run(order=NAMES, rounds=20):
    """Return the events of stages, operators and kernels that all take the same time in all.

    In each round their times differ, so that sums of floats differ by the order of the rounds.
    """
    gpu = GpuTrace()
    for i in range(rounds):
        for position, name in enumerate(order):
            dur = 0.1 + 0.7 * ((i + NAMES.index(name)) % len(NAMES))
            with gpu.tag(name), gpu.op_range(f"aten::{name}"):
                gpu.launch(f"kernel_{name}", round(dur, 1))
            gpu.wait(10 + position)
    return gpu.events


@pytest.fixture(params=SHUFFLED)
def path(request, tmp_path):
    """Return the path of a run with ties, of one order of its tags."""
    return write(tmp_path / "ties.json", tied_run(request.param), config=None)


@pytest.fixture(params=["whole", "chunks"])
def analysis(request, path, small_chunks):
    """Return the analysis of a run with ties, at once and in chunks."""
    if request.param == "whole":
        return analyze(path)
    with small_chunks():
        chunked = analyze(path)
        assert isinstance(chunked, MergedAnalysis)
        _ = chunked.operators, chunked.kernels, chunked.longest_ops
        return chunked


def test_tables_with_ties_are_in_the_order_of_names(analysis):
    assert [stage.name for stage in stage_shares(analysis)] == sorted(NAMES)
    assert [tag.name for tag in slowest_tags(analysis)] == sorted(NAMES)
    assert [row.name for row in kernel_rows(analysis)] == [f"kernel_{n}" for n in sorted(NAMES)]
    assert [row.name for row in operator_rows(analysis)] == [f"aten::{n}" for n in sorted(NAMES)]
    assert [part.name for part in slow_parts(analysis)] == [f"aten::{n}" for n in sorted(NAMES)]
    assert len({stage.ms for stage in stage_shares(analysis)}) == 1


def test_longest_operations_with_ties_are_in_the_order_of_time(analysis):
    longest = analysis.longest_ops
    assert len({op.ms for op in longest}) == 1
    assert [op.start_ms for op in longest] == sorted(op.start_ms for op in longest)
    earliest = analyze(analysis.trace.path).longest_ops
    assert [asdict(op) for op in longest] == [near(asdict(op)) for op in earliest]


def test_findings_and_changes_with_ties_have_one_order(analysis):
    keys = [largest_first(f.gain_ms, f.rule, f.tag, f.what) for f in advise(analysis)]
    assert keys == sorted(keys)
    changes = compare_runs(analysis, analysis).changes
    assert [change.path for change in changes] == sorted(change.path for change in changes)


def test_whole_json_of_ties_is_the_same_in_chunks(path, small_chunks):
    whole = analysis_json(analyze(path))
    with small_chunks():
        chunked = analysis_json(analyze(path))
    for key in ("stages", "slowest", "operators", "kernels", "gaps", "memory", "update"):
        assert chunked[key] == near(whole[key]), key


def test_exact_ms_of_sums_in_any_order_is_equal():
    first, last = (0.1 + 0.2) + 0.3, 0.1 + (0.2 + 0.3)
    assert first != last
    assert exact_ms(first) == exact_ms(last) == 0.6
