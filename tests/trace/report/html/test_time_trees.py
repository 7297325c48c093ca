"""The trees of the page."""

import random
from collections import Counter, defaultdict

import pytest

from glassworld.trace import analyze
from glassworld.trace.report.html.time_trees import MOST_ROWS, default_tree, time_trees
from glassworld.trace.timeline.merged import operator_stacks
from tests.support.traces import CpuTrace, GpuTrace, write

PARENT, NAME, FAMILY, COUNT, CPU, SELF, BUSY = 0, 1, 4, 6, 7, 8, 9


def random_calls(seed):
    """Return the events of nested operators, and the microseconds and calls of every stack."""
    rng, clock = random.Random(seed), CpuTrace()
    spent: dict[tuple[str, ...], float] = defaultdict(float)
    calls: Counter[tuple[str, ...]] = Counter()

    def call(stack, depth):
        start, index = clock.now, len(clock.events)
        stack = (*stack, f"aten::op{rng.randrange(3)}")
        clock.wait(rng.randrange(1, 50))
        for _ in range(rng.randrange(3) if depth < 3 else 0):
            call(stack, depth + 1)
        spent[stack] += clock.now - start
        calls[stack] += 1
        clock.event("cpu_op", stack[-1], start, clock.now - start)
        clock.events.insert(index, clock.events.pop())

    for _ in range(40):
        call((), 0)
    return clock.events, spent, calls


def test_operator_stacks_equal_the_calls_that_were_made(tmp_path, small_chunks):
    events, spent, calls = random_calls(3)
    path = write(tmp_path / "calls.json", events, config=None)
    whole = operator_stacks(analyze(path))
    assert {row.path: row.instances for row in whole} == calls
    assert {row.path: row.cpu_ms * 1000 for row in whole} == pytest.approx(spent)
    with small_chunks():
        chunked = operator_stacks(analyze(path))
    assert {row.path: row.cpu_ms * 1000 for row in chunked} == pytest.approx(spent)


def test_tree_of_operators_adds_up_and_leaves_out_what_no_pixel_shows(tmp_path):
    clock = CpuTrace()
    for i in range(2 * MOST_ROWS):
        clock.op(f"aten::op_{i}", 1)
    clock.op("aten::large", 10 * MOST_ROWS)
    trees = time_trees(analyze(write(tmp_path / "many.json", clock.events, config=None)))
    assert [row[NAME] for row in trees["operators"]] == ["aten::large"]


def test_tags_that_explain_a_run_are_shown_alone(run):
    analysis = analyze(run())
    trees = time_trees(analysis)
    assert list(trees) == ["tags"]
    assert default_tree(analysis, trees) == "tags"
    assert {row[FAMILY] for row in trees["tags"]} >= {"denoise", "decode", "update"}
    for i, row in enumerate(trees["tags"]):
        inner = sum(other[CPU] for other in trees["tags"] if other[PARENT] == i)
        assert row[SELF] + inner == pytest.approx(row[CPU], abs=0.01)


def test_operators_of_a_gpu_run_have_its_busy_time(tmp_path):
    gpu = GpuTrace()
    with gpu.op_range("aten::linear"), gpu.op_range("aten::mm"):
        gpu.launch("gemm", 400)
    with gpu.op_range("aten::linear"):
        gpu.launch("bias", 100)
    analysis = analyze(write(tmp_path / "gpu.json", gpu.events, config=None))
    trees = time_trees(analysis)
    assert [(row[NAME], row[COUNT], row[BUSY]) for row in trees["operators"]] == [
        ("aten::linear", 2, 0.5),
        ("aten::mm", 1, 0.4),
    ]
    assert default_tree(analysis, trees) == "operators"
