"""Compiled regions and fused kernels, against a search of the events one by one."""

import functools
import gzip
import json
import re
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import asdict

import pytest

from glassworld.trace import analyze
from glassworld.trace.analyzers.torch_compile.fused_kernels import compiled_regions, fused_kernels
from tests.support.paths import SHARED
from tests.support.traces import CpuTrace, GpuTrace, invoke, near, write

TRACES = SHARED / "traces"
ADD, NORM = "triton_poi_fused_add_relu_0", "triton_red_fused_native_layer_norm_1"


@contextmanager
def region(gpu, name, graph=""):
    gpu.wait(2)
    with gpu.op_range(name):
        gpu.wait(3)
        if graph:
            with gpu.op_range(f"## Call CompiledFxGraph {graph} ##"):
                yield
        else:
            yield
        gpu.wait(1)
    gpu.wait(2)


def compiled_run(steps=1):
    """Return a run with two regions, one inside the other, their backward, and work outside."""
    gpu = GpuTrace()
    for step in range(steps):
        with gpu.tag(f"step {step}"):
            with gpu.tag("forward"), region(gpu, "Torch-Compiled Region: 0/0", "fouter"):
                gpu.launch(ADD, 100)
                gpu.launch(NORM, 50)
                with (
                    region(gpu, "Torch-Compiled Region: 1/0"),
                    gpu.op_range("CompiledFunction"),
                    gpu.op_range("## Call CompiledFxGraph finner ##"),
                ):
                    gpu.launch(ADD, 30)
                    gpu.launch("sgemm", 300)
                gpu.launch("triton_poi_fused_add_relu_2", 10)
            gpu.wait(1)
            with gpu.tag("loss"):
                gpu.launch("eager_add", 200)
                gpu.launch(ADD, 7)
            gpu.wait(1)
            with region(gpu, "CompiledFunctionBackward", "fback"):
                gpu.launch("triton_poi_fused__to_copy_threshold_backward_0", 20)
            with gpu.op_range("## Call CompiledFxGraph falone ##"):
                gpu.launch(NORM, 5)
            gpu.wait(1)
    return gpu.events


def trained_run(steps=1):
    """Return steps whose backward passes run on a thread of their own, without tags.

    Each forward pass is linked to its backward one as the profiler links them: a flow begins with
    the one and ends with the other.
    """
    gpu = GpuTrace()

    def end_of_flow(phase, number, tid):
        ts = round(gpu.base + gpu.now, 3)
        event = {"ph": phase, "cat": "fwdbwd", "name": "fwdbwd", "pid": 1, "tid": tid}
        gpu.events.append(event | {"ts": ts, "id": number})

    for step in range(steps):
        for number, name in enumerate(("encoder", "decoder")):
            with gpu.tag(name), region(gpu, "Torch-Compiled Region: 0/0"):
                end_of_flow("s", 2 * step + number, tid=1)
                with gpu.op_range("CompiledFunction"):
                    gpu.launch(ADD, 10)
        for number, dur in ((1, 20), (0, 30)):
            gpu.wait(5)
            start, index = gpu.now, len(gpu.events)
            end_of_flow("f", 2 * step + number, tid=2)
            gpu.launch("triton_poi_fused_threshold_backward_0", dur)
            gpu.events[-2]["tid"] = 2  # the launch
            gpu.event("cpu_op", "CompiledFunctionBackward", start, gpu.now - start, tid=2)
            gpu.events.insert(index, gpu.events.pop())
    return gpu.events


def test_regions_have_their_runs_tags_and_times(tmp_path):
    analysis = analyze(write(tmp_path / "t.json", compiled_run(steps=2), config=None))
    found = {(r.region[-11:], r.graph, r.path): r for r in compiled_regions(analysis)}
    step, forward = ("step {n}",), ("step {n}", "forward")
    figures = {key: (r.runs, r.cpu_ms, r.gpu_ms, r.fused_ms) for key, r in found.items()}
    assert figures == {
        ("Region: 0/0", "fouter", forward): pytest.approx((2, 0.028, 0.32, 0.32)),
        ("Region: 1/0", "finner", forward): pytest.approx((2, 0.016, 0.66, 0.06)),
        ("ionBackward", "fback", step): pytest.approx((2, 0.012, 0.04, 0.04)),
        ("h falone ##", "falone", step): pytest.approx((2, 0.004, 0.01, 0.01)),
    }
    every_op = 2 * (100 + 50 + 30 + 300 + 10 + 200 + 7 + 20 + 5) / 1000
    for row in found.values():
        assert row.share == pytest.approx(row.gpu_ms / every_op)


def test_time_in_which_a_region_has_another_one_compiled_is_none_of_its_own(tmp_path):
    gpu = GpuTrace()
    with region(gpu, "Torch-Compiled Region: 0/0"):
        gpu.launch(ADD, 10)
        with gpu.op_range("_compile.compile_inner (dynamo_timed)"):
            gpu.wait(5_000)
            gpu.launch("benchmarked", 40)
        with region(gpu, "Torch-Compiled Region: 1/0"):
            gpu.launch(ADD, 20)
    analysis = analyze(write(tmp_path / "t.json", gpu.events, config=None))
    rows = compiled_regions(analysis)
    found: object = {r.region[-3:]: (r.runs, r.cpu_ms, r.gpu_ms) for r in rows}
    assert found == {
        "0/0": (1, pytest.approx(0.010), pytest.approx(0.01)),
        "1/0": (1, pytest.approx(0.006), pytest.approx(0.02)),
    }


def test_fused_kernels_are_summed_up_by_operators_and_place(tmp_path):
    analysis = analyze(write(tmp_path / "t.json", compiled_run(), config=None))
    rows: object = {
        (" ".join(k.operators), k.graph, k.path[-1]): (k.kernels, k.calls, k.ms)
        for k in fused_kernels(analysis)
    }
    assert rows == {
        ("add relu", "fouter", "forward"): (2, 2, pytest.approx(0.11)),
        ("native_layer_norm", "fouter", "forward"): (1, 1, pytest.approx(0.05)),
        ("add relu", "finner", "forward"): (1, 1, pytest.approx(0.03)),
        ("_to_copy threshold_backward", "fback", "step {n}"): (1, 1, pytest.approx(0.02)),
        ("add relu", "", "loss"): (1, 1, pytest.approx(0.007)),
        ("native_layer_norm", "falone", "step {n}"): (1, 1, pytest.approx(0.005)),
    }


@pytest.mark.parametrize("run_of", [compiled_run, trained_run])
def test_regions_of_a_trace_in_chunks_are_those_of_the_whole(tmp_path, small_chunks, run_of):
    path = write(tmp_path / "t.json", run_of(steps=40), config=None)
    whole = analyze(path)
    with small_chunks():
        chunked = analyze(path)
        for rows_of in (compiled_regions, fused_kernels):
            expected = [near(asdict(row)) for row in rows_of(whole)]
            assert [asdict(row) for row in rows_of(chunked)] == expected
    assert type(chunked) is not type(whole)


def test_backward_region_has_the_tags_of_its_forward_pass(tmp_path):
    path = write(tmp_path / "t.json", trained_run(steps=3), config=None)
    analysis = analyze(path)
    backward = {r.forward_path: r for r in compiled_regions(analysis) if "Backward" in r.region}
    figures: object = {key: (r.path, r.runs, r.gpu_ms) for key, r in backward.items()}
    assert figures == {
        ("decoder",): ((), 3, pytest.approx(0.06)),
        ("encoder",): ((), 3, pytest.approx(0.09)),
    }
    assert all(r.forward_path == () for r in compiled_regions(analysis) if r.path)
    kernels = {k.forward_path: k.ms for k in fused_kernels(analysis) if "Backward" in k.region}
    assert kernels == {("decoder",): pytest.approx(0.06), ("encoder",): pytest.approx(0.09)}
    assert "gradient of" in invoke("compiled", path).output


def without_ids(events):
    return [{key: value for key, value in e.items() if key != "id"} for e in events]


@pytest.mark.parametrize(
    "change",
    [
        lambda events: [event for event in events if event["ph"] != "s"],
        lambda events: [*events, *(event for event in events if event["ph"] == "s")],
        without_ids,
    ],
)
def test_backward_region_whose_forward_pass_is_not_told_has_no_tag(tmp_path, change):
    events = change(trained_run())
    analysis = analyze(write(tmp_path / "t.json", events, config=None))
    (row,) = (r for r in compiled_regions(analysis) if "Backward" in r.region)
    assert (row.path, row.forward_path, row.runs) == ((), (), 2)


def cpp_run():
    """Return a compiled run on the CPU whose C++ kernels have events."""
    cpu = CpuTrace()
    with cpu.tag("work"):
        start, index = cpu.now, len(cpu.events)
        cpu.op("graph_0_cpp_fused_native_layer_norm_0", 40)
        cpu.op("aten::addmm", 50)
        cpu.op("graph_0_cpp_fused__softmax_mul_1", 10)
        cpu.event("cpu_op", "Torch-Compiled Region: 0/0", start, cpu.now - start)
        cpu.events.insert(index, cpu.events.pop())
    cpu.op("aten::add", 100)
    return cpu.events


def test_cpp_kernels_count_with_their_cpu_time(tmp_path):
    analysis = analyze(write(tmp_path / "t.json", cpp_run(), config=None))
    (row,) = compiled_regions(analysis)
    assert (row.runs, row.cpu_ms, row.gpu_ms, row.fused_ms) == pytest.approx((1, 0.1, 0, 0.05))
    assert row.share == pytest.approx(0.5)
    norm, softmax = fused_kernels(analysis)
    assert (norm.operators, softmax.operators) == (("native_layer_norm",), ("_softmax", "mul"))
    assert norm.kind == softmax.kind == "C++"
    assert (norm.ms, norm.share) == pytest.approx((0.04, 0.2))
    assert (softmax.ms, softmax.share) == pytest.approx((0.01, 0.05))


def test_report_shows_compiled_regions_only_where_there_are_some(tmp_path, run):
    path = write(tmp_path / "t.json", compiled_run(), config=None)
    shown = invoke("report", path, "--json", tmp_path / "a.json").output
    assert "Compiled regions" in shown
    assert "Fused kernels" in shown
    assert "Region 1/0 (finner)" in invoke("compiled", path).output
    document = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert document["compiled_regions"] == json.loads(invoke("compiled", path, "--json").output)
    assert document["fused_kernels"] == json.loads(invoke("fused", path, "--json").output)
    others = invoke("report", run(blocks=1)).output
    assert "Compiled regions" not in others
    assert "Fused kernels" not in others


def test_remark_says_how_cpp_kernels_get_events(tmp_path):
    events = [event for event in cpp_run() if "cpp_fused" not in event["name"]]
    path = write(tmp_path / "t.json", events, config=None)
    assert "enable_kernel_profile = True" in invoke("compiled", path).output.replace("\n", " ")


REGION = re.compile(r"Torch-Compiled Region|CompiledFunctionBackward$|## Call CompiledFxGraph")


def searched(path):
    """Return kernels, calls and ms by operators' text, over all regions, one event at a time."""
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    complete = [event for event in events if event.get("ph") == "X"]
    regions = [
        (event["tid"], float(event["ts"]), float(event["ts"]) + float(event["dur"]))
        for event in complete
        if event["cat"] in ("cpu_op", "user_annotation") and REGION.match(event["name"])
    ]
    launches = {
        event["args"]["correlation"]: event
        for event in complete
        if event["cat"] in ("cuda_runtime", "cuda_driver") and "correlation" in event["args"]
    }
    sums: defaultdict[str, list[float]] = defaultdict(lambda: [0, 0.0])
    for event in complete:
        fused = re.match(r"triton_\w{3}_fused_?(\w*?)_?\d+$", event["name"])
        if event["cat"] == "kernel" and fused:
            call = launches[event["args"]["correlation"]]
            if any(t == call["tid"] and a <= float(call["ts"]) <= b for t, a, b in regions):
                sums[fused[1]][0] += 1
                sums[fused[1]][1] += float(event["dur"]) / 1000
    return sums


@pytest.mark.slow
@pytest.mark.skipif(not TRACES.is_dir(), reason="shared/traces is not here")
@pytest.mark.parametrize("file", ["mi300x-sd3.5-diffusion", "b200-vllm-eager"])
def test_fused_kernels_of_real_traces_equal_a_search(file):
    path = TRACES / f"{file}.json.gz"
    rows = [row for row in fused_kernels(analyze(path)) if row.region]
    found: defaultdict[str, list[float]] = defaultdict(lambda: [0, 0.0])
    for row in rows:
        found["_".join(row.operators)][0] += row.calls
        found["_".join(row.operators)][1] += row.ms
    expected = searched(path)
    assert found.keys() == expected.keys()
    assert found
    for operators, sums in expected.items():
        assert found[operators] == pytest.approx(sums)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, about itself
def test_a_model_that_torch_compiles_here_is_read(tmp_path):
    """Record a real compiled model on the CPU, with events of its C++ kernels."""
    import torch
    from torch._inductor import config

    import glassworld

    def model(x):
        return torch.relu(torch.nn.functional.layer_norm(x, (64,)) * 2 + x).softmax(-1)

    x = torch.randn(32, 64)
    with config.patch({"cpp.enable_kernel_profile": True}), torch.no_grad():
        compiled = torch.compile(model)
        try:
            compiled(x)
        except Exception as error:  # no C++ compiler here
            pytest.skip(f"torch.compile does not work here: {error}")
        with glassworld.profile(tmp_path / "t.json"), glassworld.tag("work"):
            compiled(x)
            compiled(x)
    analysis = analyze(tmp_path / "t.json")
    (row,) = compiled_regions(analysis)
    assert (row.region[:15], row.path, row.runs) == ("Torch-Compiled ", ("work",), 2)
    assert len(row.graph) > 20
    operators = functools.reduce(set.union, (set(k.operators) for k in fused_kernels(analysis)))
    assert {"native_layer_norm", "relu", "_softmax"} <= operators


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:The .grad attribute")
def test_backward_pass_that_torch_compiles_here_has_its_forward_tags(tmp_path):
    """Record a real training step on the CPU, of two compiled models with a tag each."""
    import torch

    import glassworld

    def compiled_layer():
        layer = torch.nn.Linear(16, 16)
        return torch.compile(lambda x: layer(x).relu())

    first, second, x = compiled_layer(), compiled_layer(), torch.randn(8, 16)

    def step():
        with glassworld.tag("Encoder"):
            y = first(x)
        with glassworld.tag("Decoder"):
            z = second(y)
        z.square().mean().backward()

    try:
        step()
    except Exception as error:  # no C++ compiler here
        pytest.skip(f"torch.compile does not work here: {error}")
    with glassworld.profile(tmp_path / "t.json"):
        step()
    rows = compiled_regions(analyze(tmp_path / "t.json"))
    found = {r.forward_path: r.runs for r in rows if r.region == "CompiledFunctionBackward"}
    assert found == {("Encoder",): 1, ("Decoder",): 1}
