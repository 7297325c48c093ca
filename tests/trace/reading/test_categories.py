"""Events find their table by category, else by process; what is left out is counted."""

import json

import pytest

from glassworld.trace import analyze
from glassworld.trace.analyzers.caveats import find_caveats
from glassworld.trace.reading.categories import DEVICE, OP, code_by_process
from glassworld.trace.reading.reader import read_trace
from tests.support.traces import CpuTrace, GpuTrace, write


def steps():
    gpu = GpuTrace()
    for _ in range(10):
        with gpu.tag("step"):
            gpu.launch("gemm", 40)
            gpu.wait(60)
    return gpu.events


def renamed(category):
    return [event | ({"cat": category} if event["cat"] == "kernel" else {}) for event in steps()]


@pytest.mark.parametrize(
    "category", ["hpu_op", "mtia_ccp_events", "collective_comm", "some_vendors_new_name"]
)
def test_device_operations_of_every_vendor_are_read(tmp_path, category):
    analysis = analyze(write(tmp_path / "t.json", renamed(category), config=None))
    assert analysis.coverage.attributed == 10
    assert analysis.tags[0].gpu_busy_ms == pytest.approx(0.4)


def test_events_of_an_unknown_category_are_counted(tmp_path):
    events = steps()
    events += [
        {"ph": "X", "cat": "weather", "name": "rain", "pid": 5, "tid": 5, "ts": e["ts"], "dur": 1}
        for e in events[:3]
    ]
    analysis = analyze(write(tmp_path / "t.json", events, config=None))
    assert analysis.coverage.gpu_ops == 10
    assert [n for n in find_caveats(analysis) if "weather" in n and "3" in n]
    assert analysis.trace.losses == []


def test_kernels_of_a_made_up_category_are_read_without_arguments(tmp_path):
    events = [e | {"args": {}} if e["cat"] == "xpu_kernel" else e for e in renamed("xpu_kernel")]
    assert analyze(write(tmp_path / "t.json", events, config=None)).coverage.gpu_ops == 10


def uncategorized(pid, tid, name, start, dur):
    return {"ph": "X", "pid": pid, "tid": tid, "name": name, "ts": start, "dur": dur, "args": {}}


def named(kind, pid, tid, name):
    return {"ph": "M", "pid": pid, "tid": tid, "name": f"{kind}_name", "args": {"name": name}}


@pytest.mark.parametrize("device", ["/device:TPU:0", "Ascend Hardware", "GPU 0"])
@pytest.mark.parametrize("names_last", [False, True])
def test_events_without_category_are_sorted_by_their_process(tmp_path, device, names_last):
    names = [
        named("process", 1, 0, device),
        named("thread", 1, 4, "XLA Ops"),
        named("thread", 1, 3, "Steps"),
        named("process", 2, 0, "/host:CPU"),
    ]
    events = [uncategorized(1, 3, "step", 1000, 1000)]
    for i in range(10):
        events.append(uncategorized(2, 7, "dispatch", 1000 + 100 * i, 5))
        events.append(uncategorized(1, 4, f"fusion.{i}", 1010 + 100 * i, 40))
    path = tmp_path / "t.json"
    path.write_text(
        json.dumps({"traceEvents": events + names if names_last else names + events}),
        encoding="utf-8",
    )
    analysis = analyze(path)
    assert analysis.coverage.gpu_ops == 10
    assert analysis.gpu
    assert analysis.gpu.busy_ns == 10 * 40_000
    assert int(analysis.operators.calls.sum()) == 10
    assert any("Steps" in note for note in find_caveats(analysis))


def test_calls_of_jaxs_python_tracer_are_python_functions(tmp_path):
    events = [
        named("process", 2, 0, "/host:CPU"),
        uncategorized(2, 7, "$core.py:102 bind", 1000, 90),
        uncategorized(2, 7, "$builtins len", 1010, 5),
        uncategorized(2, 7, "PjitFunction(f)", 1020, 60),
        uncategorized(2, 7, "$", 1090, 2),
    ]
    path = tmp_path / "t.json"
    path.write_text(json.dumps(events), encoding="utf-8")
    trace = read_trace(path)
    assert [trace.names[row["name"]] for row in trace.python.to_array()] == [
        "$core.py:102 bind",
        "$builtins len",
    ]
    assert [trace.names[row["name"]] for row in trace.ops.to_array()] == ["PjitFunction(f)", "$"]


def test_old_autograd_export_is_read(tmp_path):
    events = []
    for i in range(10):
        events.append(uncategorized("CPU functions", 1, "mul", 100 * i, 80))
        events.append(uncategorized("CUDA functions", 0, "mul", 100 * i + 10, 60))
    path = tmp_path / "t.json"
    path.write_text(json.dumps(events), encoding="utf-8")
    analysis = analyze(path)
    assert analysis.coverage.gpu_ops == 10
    assert analysis.gpu
    assert analysis.gpu.busy_ns == 10 * 60_000
    assert int(analysis.operators.calls.sum()) == 10


def test_steps_of_old_profilers_are_tags(tmp_path):
    gpu = GpuTrace()
    for i in range(4):
        start = gpu.now
        gpu.launch("gemm", 40)
        gpu.wait(60)
        gpu.event("Operator", f"ProfilerStep#{i}", start, gpu.now - start)
        gpu.event("Operator", "aten::mul", start, 3)
    analysis = analyze(write(tmp_path / "t.json", gpu.events, config=None))
    assert [row.pattern for row in analysis.patterns] == ["ProfilerStep#{n}"]
    assert analysis.patterns[0].gpu_kernels == 4
    assert int(analysis.operators.calls.sum()) == 4


@pytest.mark.parametrize(
    ("process", "row", "category", "on_stream", "code"),
    [
        ("CANN", "", "", False, OP),
        ("CANN", "", "weather", False, 0),
        ("x", "", "weather", True, DEVICE),
        ("/device:GPU:0", "XLA Modules", "", False, 0),
        ("/device:GPU:0", "Stream #3", "", False, DEVICE),
        ("python (CPU of GPU 0)", "", "", False, OP),
        ("Overlap Analysis", "", "", False, 0),
    ],
)
def test_code_by_process(process, row, category, on_stream, code):
    assert code_by_process(process, row, category, on_stream) == code


def test_asynchronous_events_are_counted(tmp_path):
    clock = CpuTrace()
    clock.op("aten::mm", 5)
    common = {"cat": "request", "name": "r", "id": 1, "pid": 1, "tid": 1, "ts": clock.base}
    events = [*clock.events, *(common | {"ph": phase} for phase in "bnbee")]
    events += [common | {"ph": phase} for phase in ("S", "T", "F", "Q", None, "C", "i", "M", "R")]
    trace = read_trace(write(tmp_path / "t.json", events, config=None))
    assert trace.left_out == [
        "8 begins, steps and ends of asynchronous events were left out",
        "2 events of no known phase were left out",
    ]
