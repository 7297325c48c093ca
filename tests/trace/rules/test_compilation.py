"""The rule about compiling: it names the time, and no other rule takes it for a stall."""

import pytest

from tests.support.advised import findings, only
from tests.support.traces import CpuTrace, GpuTrace, write

COMPILING = "_compile.compile_inner (dynamo_timed)"


def steps(clock, compiled_in, ms=400):
    """Return steps of 10 ms; in those of `compiled_in`, torch.compile compiles too."""
    for i in range(12):
        with clock.tag("step"):
            clock.op("aten::mm", 10_000 + 7 * (i % 5))
            if i in compiled_in:
                start = clock.now
                clock.op("compile_file (dynamo_timed)", 1_000 * ms)
                clock.event("cpu_op", COMPILING, start, clock.now - start)
        clock.wait(100)
    return clock.events


@pytest.mark.parametrize("compiled_in", [(0,), (7,)])
def test_compiling_is_found_and_is_no_stall(tmp_path, compiled_in):
    found = only(write(tmp_path / "t.json", steps(CpuTrace(), compiled_in), config=None))
    assert found.rule == "compilation"
    assert found.gain_ms == pytest.approx(400)
    assert found.value == pytest.approx(400 / (400 + 120 + 1.1), rel=1e-3)
    assert "once" in found.what


def test_ranges_inside_each_other_count_once_and_stretches_add_up(tmp_path):
    found = only(write(tmp_path / "t.json", steps(CpuTrace(), (3, 4)), config=None))
    assert (found.rule, found.gain_ms) == ("compilation", pytest.approx(800))
    assert "2 times, for 800.0 ms in total; the longest takes 400.0 ms at 0.04 s" in found.what


def test_a_stall_beside_short_compiling_is_still_a_stall(tmp_path):
    clock = CpuTrace()
    steps(clock, (7,), ms=5)
    with clock.tag("step"):
        clock.wait(400_000)
    found = findings(write(tmp_path / "t.json", clock.events, config=None))
    assert set(found) == {("stall", "step")}


def test_a_run_on_a_gpu_that_compiles_has_the_finding(tmp_path):
    gpu = GpuTrace()
    for i in range(20):
        with gpu.tag("step"):
            if i == 0:
                gpu.op(COMPILING, 300)
            gpu.launch("gemm", 500)
            gpu.wait(500)
    found = findings(write(tmp_path / "t.json", gpu.events, config=None))
    assert ("compilation", "(the whole run)") in found
