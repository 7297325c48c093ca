"""Flow events connect operations without correlation ids with what launched them."""

import json

import pytest

from glassworld.trace import analyze
from glassworld.trace.analyzers.operators import operator_rows
from tests.support.traces import GpuTrace, write


def old_export(path, ids=int):
    """Write what the profiler before Kineto wrote: two kinds of operator, kernels, flows."""
    events = []
    for i in range(10):
        name, at = ("add", "mul")[i % 2], 100 * i
        ends = {"name": name, "id": ids(i), "cat": "cpu_to_cuda", "args": {}}
        cpu, gpu = {"pid": "CPU functions", "tid": 1}, {"pid": "CUDA functions", "tid": 0}
        busy = 20 + 40 * (i % 2)
        events += [
            {"ph": "X", "name": name, "ts": at, "dur": 80, "args": {}} | cpu,
            {"ph": "s", "ts": at} | cpu | ends,
            {"ph": "f", "ts": at + 10} | gpu | ends,
            {"ph": "X", "name": f"{name}_kernel", "ts": at + 10, "dur": busy, "args": {}} | gpu,
        ]
    path.write_text(json.dumps(events), encoding="utf-8")
    return path


@pytest.mark.parametrize("ids", [int, str, lambda i: hex(2**70 + i), lambda i: i % 3])
def test_operators_of_an_old_export_have_the_time_of_their_kernels(tmp_path, ids):
    analysis = analyze(old_export(tmp_path / "old.json", ids))
    assert analysis.coverage.launched == analysis.coverage.gpu_ops == 10
    rows = {row.name: row.gpu_ms for row in operator_rows(analysis)}
    assert rows == pytest.approx({"add": 0.1, "mul": 0.3})


def without_correlation(gpu, flows=True):
    """Return the events with flows in the place of correlation ids."""
    events = []
    for event in gpu.events:
        number = event["args"].pop("correlation", None)
        events.append(event)
        if number and flows:
            phase = "s" if event["cat"] == "cuda_runtime" else "f"
            place = {key: event[key] for key in ("pid", "tid", "ts")}
            events.append({"ph": phase, "id": number, "cat": "ac2g", "name": "ac2g"} | place)
    return events


def launching_steps():
    gpu = GpuTrace()
    for step in range(5):
        with gpu.tag(f"step {'ab'[step % 2]}"):
            gpu.launch("gemm", 10 + step)
            gpu.launch("gemm", 30)
        gpu.wait(3)
    return gpu


def test_flows_between_calls_and_kernels_give_what_correlation_ids_give(tmp_path):
    known = analyze(write(tmp_path / "known.json", launching_steps().events, config=None))
    path = write(tmp_path / "flows.json", without_correlation(launching_steps()), config=None)
    through_flows = analyze(path)
    assert through_flows.tags == known.tags
    assert through_flows.calls == known.calls
    bare = write(tmp_path / "bare.json", without_correlation(launching_steps(), False), config=None)
    assert analyze(bare).coverage.launched == 0


def test_flows_from_forward_to_backward_launch_nothing(tmp_path):
    events = without_correlation(launching_steps())
    for event in events:
        if event["ph"] in "sf":
            event["cat"] = "fwdbwd"
    assert analyze(write(tmp_path / "t.json", events, config=None)).coverage.launched == 0
