"""Each GPU operation is matched with the call that launched it, by flow events or shared ids."""

import json

import pytest

from glassworld.trace import analyze
from glassworld.trace.analyzers.caveats import find_caveats
from glassworld.trace.analyzers.operators import operator_rows
from glassworld.trace.reading.reader import read_trace
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


def process(tag, host, device, later=0.0):
    """Return the events of one of several processes, which all count their ids from 1."""
    gpu = GpuTrace()
    gpu.wait(later)
    with gpu.tag(tag):
        for _ in range(8):
            gpu.launch("gemm", 40)
            gpu.wait(60)
    for event in gpu.events:
        on_gpu = event["pid"] == 0
        event["pid"] = device if on_gpu else host
        if on_gpu and isinstance(device, int):
            event["args"]["device"] = device
    return gpu.events


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((100, 0), (200, 1, 30.0)),  # some kernels ran before the other process's calls
        ((100, 0), (200, 1, 1e6)),
        (("[TP00] 100", "[TP00] 0"), ("[TP01] 200", "[TP01] 0", 1.0)),
    ],
)
def test_ids_that_processes_share_lead_to_the_calls_of_each(tmp_path, first, second):
    one, other = process("a", *first), process("b", *second)
    for events in (one + other, other + one):
        analysis = analyze(write(tmp_path / "both.json", events, config=None))
        kernels = {row.name: row.gpu_kernels for row in analysis.patterns}
        assert kernels == {"a": 8, "b": 8}
        assert len(set(analysis.trace.launches["correlation"].tolist())) == 16
        assert not any("correlation ids" in note for note in find_caveats(analysis))


def test_ids_that_processes_share_are_told_apart_by_the_order_of_the_file_with_a_note(tmp_path):
    events = process("a", 100, 0) + process("b", 200, 1, 1.0)
    analysis = analyze(write(tmp_path / "both.json", events, config=None))
    assert {row.name: row.gpu_kernels for row in analysis.patterns} == {"a": 8, "b": 8}
    assert any("only the order of the events" in note for note in find_caveats(analysis))


def test_ids_that_processes_share_in_one_row_are_a_guess_with_a_note(tmp_path):
    events = process("a", 100, 0) + process("b", 200, 0, 30.0)
    analysis = analyze(write(tmp_path / "both.json", events, config=None))
    assert {row.name: row.gpu_kernels for row in analysis.patterns} == {"a": 8, "b": 8}
    (note,) = (note for note in find_caveats(analysis) if "correlation ids" in note)
    assert note.startswith("16 GPU operations")


def test_ids_of_different_processes_stay_as_they_are(tmp_path):
    events = process("a", 100, 0)
    moved = process("b", 200, 1)
    for event in moved:
        if "correlation" in event["args"]:
            event["args"]["correlation"] += 1000
    trace = read_trace(write(tmp_path / "both.json", events + moved, config=None))
    assert sorted(trace.launches["correlation"].tolist()) == [*range(1, 9), *range(1001, 1009)]


def test_waits_and_labels_follow_the_ids_of_their_process(tmp_path):
    events = process("a", 100, 0) + process("b", 200, 1, 30.0)
    for event in events:
        if event["cat"] == "kernel":
            event["args"] |= {"graph node id": 3, "str": f"label of {event['pid']}"}
    for device in (0, 1):
        wait = {"ph": "X", "cat": "cuda_sync", "name": "Stream Sync", "pid": device, "tid": 7}
        args = {"correlation": 5, "stream": 7, "device": device}
        events.append(wait | {"ts": events[0]["ts"] + 50, "dur": 1, "args": args})
    trace = read_trace(write(tmp_path / "both.json", events, config=None))
    waits, labels = trace.sync_rows.to_array(), trace.labeled_ops.to_array()
    launches = dict(zip(trace.launches["correlation"], trace.launches["thread"], strict=True))
    pids = [trace.threads[launches[wait]][0] for wait in waits["correlation"]]
    assert pids == [100, 200]
    of_ops = {op["correlation"]: trace.threads[op["thread"]][0] for op in trace.device_ops}
    for label in labels:
        assert trace.names[label["label"]] == f"label of {of_ops[label['correlation']]}"
