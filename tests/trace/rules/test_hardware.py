"""Rules about the hardware: what was planted in a trace is found by its rule."""

import pytest

from glassworld.trace import analyze
from glassworld.trace.rules.rule import advise
from tests.support.advised import findings, only
from tests.support.traces import GpuTrace, write


def gpu_trace(tmp_path, lay_out, **document):
    gpu = GpuTrace()
    with gpu.tag("step"):
        lay_out(gpu)
    return write(tmp_path / "gpu.json", gpu.events, config=None, **document)


def healthy(gpu):
    for _ in range(60):
        with gpu.op_range("aten::mm"):
            gpu.launch("gemm", 300)
        gpu.wait(10)
    gpu.wait(15_000)


def test_busy_gpu_has_no_findings(tmp_path):
    path = gpu_trace(tmp_path, healthy)
    assert findings(path) == {}
    analysis = analyze(path)
    assert analysis.coverage.attributed == 60


def test_launches_that_come_too_late_are_launch_bound(tmp_path):
    def lay_out(gpu):
        for _ in range(100):
            with gpu.op_range("aten::index"):
                gpu.launch("index", 5)
            gpu.wait(40)

    found = only(gpu_trace(tmp_path, lay_out))
    assert (found.rule, found.tag) == ("launch-bound", "step")
    assert found.value == pytest.approx(0.9, abs=0.05)
    assert "operations start 3 µs after their launch" in found.what  # 5 less the call's 2


@pytest.mark.parametrize(("tag", "ours"), [("step", False), ("DiffusionModel_Forward", True)])
def test_flags_of_the_engine_are_named_only_for_its_own_runs(tmp_path, tag, ours):
    gpu = GpuTrace()
    with gpu.tag(tag):
        for _ in range(100):
            gpu.launch("add", 5)
            gpu.wait(40)
        gpu.memory(95 * 2**30, 0)
    properties = [{"id": 0, "totalGlobalMem": 100 * 2**30}]
    path = write(tmp_path / "gpu.json", gpu.events, config=None, deviceProperties=properties)
    changes = {finding.rule: finding.change for finding in advise(analyze(path))}
    assert "torch.compile" in changes["launch-bound"]
    assert ("--accelerate kernels,graphs" in changes["launch-bound"]) == ours
    assert ("--num-output-frames" in changes["memory-full"]) == ours
    assert ("--" in "".join(changes.values())) == ours


def test_gpu_stall_is_found_with_what_the_cpu_did(tmp_path):
    def lay_out(gpu):
        healthy(gpu)
        gpu.op("aten::nonzero", 12_000)
        healthy(gpu)

    found = only(gpu_trace(tmp_path, lay_out))
    assert found.rule == "gpu-stall"
    assert "aten::nonzero" in found.what
    assert "of the trace, threshold 20%" in found.measured  # it has no blocks
    queued = 60 * 0.3 - (60 * 0.012 + 15)  # what the GPU still had to do when the stall began
    assert found.gain_ms == pytest.approx(12 - queued, rel=0.01)


def test_cpu_work_in_several_gaps_is_summed(tmp_path):
    def lay_out(gpu):
        for _ in range(6):
            gpu.op("aten::decode_jpeg", 3_000)
            for _ in range(8):
                gpu.launch("gemm", 600)
                gpu.wait(10)
            gpu.wait(5_000)

    found = only(gpu_trace(tmp_path, lay_out))
    assert (found.rule, found.tag) == ("host-work", "aten::decode_jpeg")
    assert found.gain_ms == pytest.approx(6 * 3, rel=0.1)


def test_waiting_after_every_kernel_is_sync_bound(tmp_path):
    def lay_out(gpu):
        for _ in range(60):
            gpu.launch("gemm", 100)
            gpu.call("cudaStreamSynchronize", 105)
            gpu.wait(60)

    found = only(gpu_trace(tmp_path, lay_out))
    assert (found.rule, found.tag) == ("sync-bound", "cudaStreamSynchronize")


def test_copying_operators_are_found(tmp_path):
    def lay_out(gpu):
        for _ in range(40):
            with gpu.op_range("aten::cat"):
                gpu.launch("CatArrayBatchedCopy", 200)
            with gpu.op_range("aten::mm"):
                gpu.launch("gemm", 300)
        gpu.wait(20_000)

    found = only(gpu_trace(tmp_path, lay_out))
    assert (found.rule, found.tag) == ("moving-data", "aten::cat")
    assert found.value == pytest.approx(0.4)


def test_copies_of_unpinned_memory_are_found(tmp_path):
    def lay_out(gpu):
        healthy(gpu)
        for _ in range(10):
            gpu.launch("Memcpy HtoD (Pageable -> Device)", 300, cat="gpu_memcpy")
        gpu.wait(4_000)

    found = only(gpu_trace(tmp_path, lay_out))
    assert found.rule == "pageable-copies"
    assert found.value == pytest.approx(3000 / 21000)


def test_unfused_attention_is_found(tmp_path):
    def lay_out(gpu):
        for _ in range(40):
            with gpu.op_range("aten::bmm"):
                gpu.launch("gemm", 300)
            with gpu.op_range("aten::softmax"):
                gpu.launch("softmax_warp_forward", 200)
        gpu.wait(20_000)

    found = only(gpu_trace(tmp_path, lay_out))
    assert (found.rule, found.tag) == ("attention-backend", "aten::softmax")
    assert found.gain_ms == pytest.approx(8)


@pytest.mark.parametrize(("allocated", "full"), [(60, False), (78, True)])
def test_nearly_full_device_is_found(tmp_path, allocated, full):
    def lay_out(gpu):
        healthy(gpu)
        gpu.memory(allocated << 30, device=0)

    devices = [{"id": 0, "totalGlobalMem": 80 << 30}]
    found = findings(gpu_trace(tmp_path, lay_out, deviceProperties=devices))
    assert set(found) == ({("memory-full", "device 0")} if full else set())


@pytest.mark.parametrize("devices", [None, "x", [1], [{"id": []}], [{"id": 0}], {"id": 0}])
def test_malformed_device_properties_are_no_evidence(tmp_path, devices):
    def lay_out(gpu):
        healthy(gpu)
        gpu.memory(78 << 30, device=0)

    assert findings(gpu_trace(tmp_path, lay_out, deviceProperties=devices)) == {}


@pytest.mark.parametrize(("gflops", "far"), [(20.0, False), (100.0, True)])
def test_tag_far_from_the_roofline_is_found(run, store_peak_rates, gflops, far):
    store_peak_rates(matmul=gflops, conv=1000.0, copy=1e6)
    found = findings(run())
    assert set(found) == ({("far-from-roof", "DiT_Feed_Forward")} if far else set())


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("operator", ["aten::copy_", "aten::_softmax", "aten::mul"])
def test_a_few_operations_are_no_evidence(tmp_path, operator, count):
    gpu = GpuTrace()
    for _ in range(count):
        with gpu.tag("step"), gpu.op_range(operator):
            gpu.launch("Memcpy HtoD (Pageable -> Device)", 500, cat="gpu_memcpy")
        gpu.wait(900_000)
    assert findings(write(tmp_path / "gpu.json", gpu.events, config=None)) == {}
