"""Rules about single GPU operations."""

import pytest

from tests.support.advised import findings, only
from tests.support.traces import CpuTrace, GpuTrace, write


@pytest.mark.parametrize("name", ["gemm", "all_reduce"])
@pytest.mark.parametrize("long", [60.0, 400_000.0])
def test_one_long_operation_is_found_with_or_without_others_of_its_name(tmp_path, name, long):
    gpu = GpuTrace()
    for i in range(20):
        with gpu.tag("step"):
            if i == 13:
                gpu.launch(name, long)
            gpu.launch("gemm", 60)
            gpu.wait(58)
    found = findings(write(tmp_path / "gpu.json", gpu.events, config=None))
    named = [finding for (rule, _), finding in found.items() if rule == "long-operation"]
    assert [finding.tag for finding in named] == ([name] if long > 1000 else [])
    if named:
        assert named[0].gain_ms == pytest.approx(long / 1000, rel=0.01)
        assert "step" in named[0].what


def test_elementwise_operations_are_advised_to_be_fused(tmp_path):
    gpu = GpuTrace()
    with gpu.tag("step"):
        for _ in range(30):
            gpu.launch("gemm", 100)
            gpu.launch("vectorized_elementwise_kernel<4, mul>", 60)
            gpu.launch("vectorized_elementwise_kernel<4, add>", 60)
        gpu.wait(6_000)
    found = only(write(tmp_path / "gpu.json", gpu.events, config=None))
    assert found.rule == "elementwise"
    assert found.value == pytest.approx(120 / 220)
    assert "fuse" in found.change


def test_kernels_of_any_name_that_elementwise_operators_launch_are_advised_to_be_fused(tmp_path):
    gpu = GpuTrace()
    with gpu.tag("step"):
        for _ in range(30):
            gpu.launch("gemm", 100)
            for name in ("aten::mul", "aten::add_"):
                with gpu.op_range(name):
                    gpu.launch("k", 60)
                gpu.wait(1)
        gpu.wait(6_000)
    found = only(write(tmp_path / "gpu.json", gpu.events, config=None))
    assert found.rule == "elementwise"
    assert found.value == pytest.approx(120 / 220)
    assert found.tag in ("aten::mul", "aten::add_")
    assert found.gain_ms == pytest.approx(1.8)


@pytest.mark.parametrize("calls", [5, 30])
def test_elementwise_operators_of_a_run_on_the_cpu_are_found_if_they_are_many(tmp_path, calls):
    clock = CpuTrace()
    with clock.tag("step"):
        for _ in range(calls):
            clock.op("aten::mm", 100)
            clock.op("aten::mul_", 120)
    found = findings(write(tmp_path / "cpu.json", clock.events, config=None))
    assert set(found) == ({("elementwise", "aten::mul_")} if calls >= 20 else set())


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(("inside", "fused"), [(20, True), (12, False)])
def test_elementwise_operations_of_an_optimizer_are_advised_to_be_its_fused_ones(
    tmp_path, inside, fused, compiled
):
    clock = CpuTrace()
    with clock.tag("Torch-Compiled Region: 0/0" if compiled else "step"):
        for _ in range(30 - inside):
            clock.op("aten::mm", 100)
            clock.op("aten::mul_", 120)
        with clock.tag("Optimizer.step#AdamW.step"):
            for _ in range(inside):
                clock.op("aten::mul_", 120)
    found = findings(write(tmp_path / "cpu.json", clock.events, config=None))
    change = found["elementwise", "aten::mul_"].change
    assert ("fused=True" in change) == fused
    assert ("fused kernel" in change) != fused


def test_elementwise_kernels_of_an_optimizer_are_advised_to_be_its_fused_ones(tmp_path):
    gpu = GpuTrace()
    for number in range(10):
        with gpu.tag(f"ProfilerStep#{number}"):
            gpu.launch("gemm", 100)
            gpu.launch("vectorized_elementwise_kernel<4, mul>", 60)
            with gpu.tag("Optimizer.step#SGD.step"):
                for _ in range(3):
                    gpu.launch("vectorized_elementwise_kernel<4, add>", 60)
            gpu.wait(330)
    found = only(write(tmp_path / "gpu.json", gpu.events, config=None))
    assert found.rule == "elementwise"
    assert found.value == pytest.approx(240 / 340)
    assert "give it fused=True" in found.change
