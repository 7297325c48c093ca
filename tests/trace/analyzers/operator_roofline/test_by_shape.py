"""Operators by shape, against a slow loop over the events of the file."""

import gzip
import json
from collections import defaultdict
from math import prod

import pytest
import torch

from glassworld.trace import analyze
from glassworld.trace.analyzers.operator_roofline.by_shape import roofline_by_shape, shape_remarks
from tests.support.paths import SHARED
from tests.support.recorded_shapes import record_shapes
from tests.support.traces import CONFIG, CpuTrace, GpuTrace, invoke, write

TRACES = SHARED / "traces"
PIECE = 1000.0  # microseconds: an operator is looked for among those of its millisecond


def inputs(*shapes, dtype="float", values=()):
    return {
        "Input Dims": [list(shape) for shape in shapes] + [[]] * len(values),
        "Input type": [dtype] * len(shapes) + ["Scalar"] * len(values),
        "Concrete Inputs": [""] * len(shapes) + list(values),
    }


def convolution(*values):
    return inputs((1, 3, 8, 8), (5, 3, 3, 3), values=values)


def program():
    """Return a program on a GPU with all that may go wrong in counting it."""
    gpu = GpuTrace()
    for _ in range(2):
        with (
            gpu.op_range("aten::linear", **inputs((2, 8, 16), (4, 16), (4,))),
            gpu.op_range("aten::addmm", **inputs((4,), (16, 16), (16, 4), values="11")),
        ):
            gpu.launch("gemm", 30)
            gpu.launch("splitk", 5)
        gpu.wait(1)
    with gpu.op_range("aten::convolution", **convolution("[1, 1]")):
        with gpu.op_range(
            "aten::cudnn_convolution", **convolution("[0, 0]", "[1, 1]", "[1, 1]", "1")
        ):
            gpu.launch("conv", 50)
        with gpu.op_range("aten::add_"):  # which begins just when the convolution ends
            gpu.launch("bias", 7)
    gpu.wait(1)
    with gpu.op_range("aten::mm", **inputs((8, 16), (16, 4))):
        gpu.wait(3)  # captured into a graph: nothing runs
    gpu.wait(1)
    with gpu.op_range("aten::mm", **inputs((8, 16), (16, 4), dtype="c10::Half")):
        gpu.launch("gemm", 11)
    gpu.wait(1)
    with gpu.op_range("aten::mm"):
        gpu.launch("gemm", 13)
    gpu.wait(1)
    gpu.launch("graph", 17)
    return gpu


def work_of(name, args):
    """Return the FLOPs of a call and the elements it moves; None for other operators."""
    shapes = args.get("Input Dims", [])
    if name in ("aten::mm", "aten::bmm") and shapes:
        (*batch, m, k), (*_, n) = shapes[:2]
        return 2 * prod(batch) * m * k * n, prod(batch) * (m * k + k * n + m * n)
    if name == "aten::addmm" and shapes:
        (m, k), (_, n) = shapes[1:3]
        return 2 * m * k * n, prod(shapes[0]) + m * k + k * n + m * n
    if name == "aten::_scaled_dot_product_flash_attention":
        (b, h, q, d), (_, _, k, _) = shapes[:2]
        causal = args["Concrete Inputs"][4] == "True"
        pairs = sum(min(i + 1, k) if causal else k for i in range(q))
        return 4 * b * h * pairs * d, 2 * b * h * (q + k) * d
    if name in ("aten::cudnn_convolution", "aten::miopen_convolution"):
        values = args["Concrete Inputs"]
        at = 2 if "cudnn" in name else 3
        padding, stride = (json.loads(values[at + i]) for i in (0, 1))
        (b, _, *size), (out, *taps) = shapes[:2]
        places = out
        for s, t, p, step in zip(size, taps[1:], padding, stride, strict=True):
            places *= (s + 2 * p - t) // step + 1
        bias = prod(shapes[2]) if "miopen" in name and args["Input type"][2] else 0
        weights = prod(shapes[1])
        return 2 * b * places * prod(taps), prod(shapes[0]) + weights + bias + b * places
    return None


def slowly(path):
    """Return calls, kernel time, FLOPs and elements by operator and shapes; and three sums."""
    text = path.read_bytes()
    if path.suffix == ".gz":
        text = gzip.decompress(text)
    events = [e for e in json.loads(text)["traceEvents"] if e.get("ph") == "X"]
    operators = defaultdict(list)
    for event in events:
        if event["cat"] == "cpu_op":
            start, args = event["ts"], event.get("args", {})
            end = start + event["dur"]
            work = work_of(event["name"], args)
            for piece in range(int(start // PIECE), int(end // PIECE) + 1):
                operators[event["tid"], piece].append((start, end, event["name"], args, work))
    launches = {
        e["args"]["correlation"]: e
        for e in events
        if e["cat"].endswith(("_runtime", "_driver")) and "correlation" in e.get("args", {})
    }
    time_of_call: dict[tuple, float] = defaultdict(float)
    whole = by_operators = 0.0
    for event in events:
        if event["cat"] not in ("kernel", "gpu_memcpy", "gpu_memset"):
            continue
        whole += event["dur"]
        launch = launches.get(event["args"]["correlation"])
        around = []
        if launch:
            at = launch["ts"]
            nearby = operators[launch["tid"], int(at // PIECE)]
            around = [operator for operator in nearby if operator[0] <= at < operator[1]]
        by_operators += event["dur"] * bool(around)
        for start, _, name, args, work in around:
            if work:  # none of the operators of `work_of` calls another
                shapes = tuple(tuple(shape) for shape in args["Input Dims"])
                time_of_call[start, name, shapes, args["Input type"][0], work] += event["dur"]
    groups: dict[tuple, list] = defaultdict(lambda: [0, 0.0])
    for (_, *group), spent in time_of_call.items():
        groups[tuple(group)][0] += 1
        groups[tuple(group)][1] += spent
    return groups, whole / 1e3, by_operators / 1e3


def check(path):
    """Compare the figures of a trace with those of the loop."""
    roofline = roofline_by_shape(analyze(path))
    groups, whole, by_operators = slowly(path)
    expected = sorted(
        (name, calls, spent / 1e3, calls * work[0], calls * work[1])
        for (name, _, _, work), (calls, spent) in groups.items()
    )
    sizes = {"float32": 4, "float16": 2, "bfloat16": 2}
    found = sorted(
        (g.operator, g.calls, g.ms, g.flops, g.bytes // sizes[g.dtype]) for g in roofline.groups
    )
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert (one[:2], one[3:]) == (other[:2], other[3:])
        assert one[2] == pytest.approx(other[2], abs=1e-6)
    assert roofline.total_ms == pytest.approx(whole)
    assert roofline.outside_ms == pytest.approx(whole - by_operators, abs=1e-6)
    counted = sum(group.ms for group in roofline.groups)
    assert roofline.counted_ms == pytest.approx(counted)
    assert roofline.other_operators_ms == pytest.approx(by_operators - counted, abs=1e-6)
    for group in roofline.groups:
        assert group.gflops == pytest.approx(group.flops / group.ms / 1e6)
        assert group.gbps == pytest.approx(group.bytes / group.ms / 1e6)
        assert group.intensity == pytest.approx(group.flops / group.bytes)
        assert group.share == pytest.approx(group.ms / whole)
    return roofline


def test_roofline_by_shape_equals_a_loop_over_the_events(tmp_path):
    roofline = check(write(tmp_path / "gpu.json", program().events, config=None))
    assert [(g.operator, g.calls, round(g.ms * 1e3)) for g in roofline.groups] == [
        ("aten::addmm", 2, 70),
        ("aten::cudnn_convolution", 1, 50),
        ("aten::mm", 1, 11),
    ]
    assert roofline.groups[0].shapes == ((4,), (16, 16), (16, 4))
    assert roofline.groups[1].flops == 2 * 5 * 6 * 6 * 27
    assert roofline.calls_without_gpu_work == 1
    assert roofline.other_operators_ms == pytest.approx((7 + 13) / 1e3)
    assert roofline.outside_ms == pytest.approx(17 / 1e3)


def test_roofline_by_shape_in_chunks_is_that_of_the_whole(tmp_path, small_chunks):
    gpu = program()
    for _ in range(12):
        with gpu.tag("step"):
            for event in program().events:
                gpu.events.append(event | {"ts": event["ts"] + gpu.now})
            for event in gpu.events[-len(program().events) :]:
                if "correlation" in event["args"]:
                    event["args"] = event["args"] | {
                        "correlation": event["args"]["correlation"] + 100 * round(gpu.now)
                    }
            gpu.wait(500)
    path = write(tmp_path / "long.json", gpu.events, config=None)
    whole = roofline_by_shape(analyze(path))
    with small_chunks():
        assert roofline_by_shape(analyze(path)) == whole
    assert whole.groups[0].calls == 13 * 2
    check(path)


SMALL = ("b200-vllm-eager", "sglang-prefill-decode", "vllm-decode-cuda-graph")
LARGE = ("h100-owlv2", "h100-timesformer", "mi300x-sd3.5-diffusion")


@pytest.mark.skipif(not TRACES.is_dir(), reason="shared/traces is not here")
@pytest.mark.parametrize(
    "name", [*SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)]
)
def test_roofline_by_shape_of_real_traces_equals_a_loop(name):
    check(TRACES / f"{name}.json.gz")


def test_roofline_by_shape_of_a_real_run_on_the_cpu_has_its_flops_and_time(tmp_path):
    def work():
        a, b = torch.ones(64, 32), torch.ones(32, 16)
        for _ in range(3):
            torch.mm(a, b)
        torch.nn.functional.linear(a, torch.ones(8, 32), torch.ones(8))
        torch.relu(a)

    path = tmp_path / "cpu.json"
    flops = record_shapes(work, path)
    roofline = roofline_by_shape(analyze(path))
    groups = {group.operator: group for group in roofline.groups}
    assert groups.keys() == {"aten::mm", "aten::addmm"}
    events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    for name, group in groups.items():
        spent = [e["dur"] for e in events if e.get("cat") == "cpu_op" and e["name"] == name]
        assert group.flops == flops[name]
        assert group.calls == len(spent)
        assert group.ms == pytest.approx(sum(spent) / 1e3)
    assert roofline.outside_ms == 0
    assert 0 < roofline.counted_ms < roofline.total_ms
    parts = roofline.counted_ms + roofline.other_operators_ms
    assert parts == pytest.approx(roofline.total_ms)


def matmul_on_cpu(tmp_path, **metadata):
    clock = CpuTrace()
    clock.op("aten::mm", 100, **inputs((64, 1000), (1000, 16)))
    clock.op("aten::mm", 100, **inputs((64, 1000), (1000, 16), dtype="c10::BFloat16"))
    return write(tmp_path / "run.json", clock.events, **metadata)


def test_share_of_the_peak_is_given_for_the_types_with_peak_rates(tmp_path, store_peak_rates):
    path = matmul_on_cpu(tmp_path, config=CONFIG)
    assert all(g.roof_gflops is None for g in roofline_by_shape(analyze(path)).groups)
    store_peak_rates(matmul=100.0, conv=50.0, copy=10.0)
    half, single = roofline_by_shape(analyze(path)).groups
    assert (half.dtype, half.roof_share, half.roof_ms, half.bound) == ("bfloat16", None, None, "")
    flops, moved = 2 * 64 * 1000 * 16, 4 * (64_000 + 16_000 + 1024)
    ideal_ms = max(flops / 100e6, moved / 10e6)
    assert single.roof_ms == pytest.approx(ideal_ms)
    assert single.roof_gflops == pytest.approx(flops / ideal_ms / 1e6)
    assert single.roof_share == pytest.approx(ideal_ms / 0.1)
    assert single.bound == "memory"
    store_peak_rates(matmul=1.0, copy=10.0)
    assert roofline_by_shape(analyze(path)).groups[1].bound == "arithmetic"


@pytest.mark.parametrize(
    ("devices", "known"),
    [(["H100"], True), (["H100", "H100"], True), (["A100"], False), (["H100", "A100"], False)],
)
def test_other_programs_have_the_peak_rates_of_the_gpu_they_name(
    tmp_path, store_peak_rates, devices, known
):
    store_peak_rates(machine={"gpu": "H100"}, device="cuda")
    named = [{"id": i, "name": name} for i, name in enumerate(devices)]
    path = write(tmp_path / "gpu.json", program().events, config=None, deviceProperties=named)
    groups = roofline_by_shape(analyze(path)).groups
    assert [g.roof_share is not None for g in groups] == [known, known, False]
    path = matmul_on_cpu(tmp_path, config=None, deviceProperties=named)  # which ran on no GPU
    assert all(g.roof_share is None for g in roofline_by_shape(analyze(path)).groups)


def test_trace_without_shapes_has_no_groups_and_no_section(run, tmp_path):
    path = run()
    assert roofline_by_shape(analyze(path)).groups == []
    assert "by operator and shape" not in invoke("report", path).output
    assert "record_shapes" in invoke("roofline", path, "--by-shape").output
    analysis = tmp_path / "analysis.json"
    invoke("report", path, "--json", analysis)
    assert json.loads(analysis.read_text(encoding="utf-8"))["roofline_by_shape"] is None


def test_command_prints_the_groups_and_what_is_left_out(tmp_path):
    path = write(tmp_path / "gpu.json", program().events, config=None)
    printed = json.loads(invoke("roofline", path, "--by-shape", "--json", "-n", 2).output)
    assert [group["operator"] for group in printed["groups"]] == [
        "aten::addmm",
        "aten::cudnn_convolution",
    ]
    assert printed["total_ms"] == pytest.approx((70 + 50 + 7 + 11 + 13 + 17) / 1e3)
    shown = invoke("roofline", path, "--by-shape").output
    assert "aten::addmm 4, 16x16, 16x4" in " ".join(shown.split())
    for sentence in shape_remarks(analyze(path)):
        assert sentence in " ".join(shown.split())
    report = invoke("report", path).output
    assert "Roofline by operator and shape" in report
    assert "78% of the GPU operations' durations are in these operators" in " ".join(report.split())
