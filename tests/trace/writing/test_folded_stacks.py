"""The lines of folded stacks add up to the time that counts."""

import pytest

from glassworld.trace import analyze
from glassworld.trace.writing.folded_stacks import write_folded
from tests.support.other_formats import RUN
from tests.support.traces import CpuTrace, engine_run, write


def stacks(tmp_path, events):
    analysis = analyze(write(tmp_path / "run.json", events, config=None))
    write_folded(tmp_path / "run.folded", analysis)
    lines = (tmp_path / "run.folded").read_text(encoding="utf-8").splitlines()
    return analysis, {stack: int(ns) for stack, _, ns in (x.rpartition(" ") for x in lines)}


def test_write_folded_on_a_gpu_adds_up_to_its_busy_time(tmp_path):
    analysis, totals = stacks(tmp_path, RUN)
    assert analysis.gpu
    assert sum(totals.values()) == analysis.gpu.busy_ns
    assert totals["step_1;forward;relu"] == 10_250
    assert totals["step_2;forward;void gemm<128, 64>(float*)"] == 42_500


def test_write_folded_on_a_cpu_adds_up_to_the_outermost_ranges(tmp_path):
    analysis, totals = stacks(tmp_path, engine_run(blocks=1))
    outermost = sum(row.cpu_ms for row in analysis.tags if len(row.path) == 1)
    assert sum(totals.values()) == pytest.approx(outermost * 1e6, abs=10)


def test_write_folded_names_keep_out_of_the_format(tmp_path):
    cpu = CpuTrace()
    with cpu.tag("a;b\nc"):
        cpu.op("", 5)
    _, totals = stacks(tmp_path, cpu.events)
    assert totals == {"a,b c;(no name)": 5_000}
