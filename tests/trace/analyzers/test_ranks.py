"""The ranks of one program."""

import json

import pytest

from glassworld.trace import analyze
from tests.support.traces import CpuTrace, invoke, write


def test_merge_ranks_puts_them_on_one_clock(tmp_path):
    paths = []
    for rank, late in enumerate((0.0, 3000.0)):
        clock = CpuTrace(base=1000.0 + 50_000 * rank)  # this rank's clock is ahead
        with clock.tag("train"):
            for i in range(4):
                at = 10_000.0 * i
                clock.event("cuda_runtime", "cudaLaunchKernel", at, 1, correlation=i + 1)
                start = at + 5 + late
                args = {"correlation": i + 1, "stream": 7}
                clock.event("kernel", "ncclDevKernel", start, at + 5000 - start, pid=0, **args)
            clock.wait(50_000)
        paths.append(write(tmp_path / f"rank{rank}.json", clock.events))
    merged = tmp_path / "merged.json"
    ranks = json.loads(invoke("merge", *paths, "-o", merged, "--json").output)
    assert ranks[1]["offset_ms"] == pytest.approx(50)
    assert ranks[0]["waited_ms"] == pytest.approx(4 * 3)
    assert ranks[1]["waited_ms"] == 0
    both = analyze(merged)
    assert both.coverage.attributed == 8
    starts = both.tree.rows["start"]
    assert starts[0] == starts[1]


def test_merge_ranks_without_collectives_starts_them_together(run, tmp_path):
    output = tmp_path / "both.json"
    assert "start at the same time" in invoke("merge", run(), run(), "-o", output).output
