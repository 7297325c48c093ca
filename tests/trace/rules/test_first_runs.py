"""Rules about first runs of kernels: slow launches, and kernels of the first step alone."""

import pytest

from glassworld.trace import analyze
from tests.support.advised import findings, only
from tests.support.traces import GpuTrace, write


def steps(first_launch=0.0, tuned=0, slow_first=1.0, name="ProfilerStep#{}", pause=0):
    """Return six steps of four kernels; the arguments say what the first step has more."""
    gpu = GpuTrace()
    for step in range(6):
        with gpu.tag(name.format(step)):
            for i in range(tuned if step == 0 else 0):
                gpu.launch(f"candidate_{i}", 150)
            for kernel in "abcd":
                extra = first_launch if step == 0 else 0.0
                if extra:
                    launch_slowly(gpu, kernel, extra)
                else:
                    gpu.launch(kernel, 100 * (slow_first if step == 0 else 1))
                gpu.wait(80)
            gpu.wait(150 + pause)
    return gpu.events


def launch_slowly(gpu, kernel, extra):
    """Launch a kernel with a call that takes longer, as one that loads a module does."""
    gpu.wait(extra)
    gpu.launch(kernel, 100)
    call = next(e for e in reversed(gpu.events) if e["cat"] == "cuda_runtime")
    call["ts"] -= extra
    call["dur"] += extra


def test_slow_first_launches_are_found_together(tmp_path):
    path = write(tmp_path / "gpu.json", steps(first_launch=700), config=None)
    finding = only(path)
    assert finding.rule == "slow-first-launch"
    assert "4 kernels" in finding.what
    assert "cudaLaunchKernel" in finding.what
    assert 1.5 < finding.gain_ms < 2.9
    gpu = analyze(path).gpu
    assert gpu
    assert finding.gain_ms * 1e6 <= analyze(path).duration_ns - gpu.busy_ns


@pytest.mark.parametrize("name", ["ProfilerStep#{}", "step", "iteration {}"])
def test_kernels_of_the_first_step_alone_are_found(tmp_path, name):
    path = write(tmp_path / "gpu.json", steps(tuned=10, name=name), config=None)
    finding = only(path)
    assert (finding.rule, finding.tag) == ("one-off-kernels", name.format(0))
    assert "10 kernels" in finding.what
    assert finding.gain_ms == pytest.approx(1.5)
    assert finding.value == pytest.approx(1.5 / (1.5 + 2.4))


def test_kernels_that_are_slow_in_the_first_step_are_found(tmp_path):
    path = write(tmp_path / "gpu.json", steps(slow_first=12), config=None)
    found = findings(path)["one-off-kernels", "ProfilerStep#0"]
    assert found.gain_ms == pytest.approx(4 * 1.1)


@pytest.mark.parametrize("more", [{}, {"tuned": 1}, {"first_launch": 30}, {"slow_first": 3}])
def test_steps_that_are_nearly_alike_have_no_finding(tmp_path, more):
    found = findings(write(tmp_path / "gpu.json", steps(**more), config=None))
    assert not [rule for rule, _ in found if rule in ("slow-first-launch", "one-off-kernels")]
