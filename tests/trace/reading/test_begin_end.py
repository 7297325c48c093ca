"""Begin and end events give the numbers of the complete events that they stand for."""

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glassworld.trace import analyze
from glassworld.trace.reading import columns
from glassworld.trace.reading.reader import read_trace
from tests.support.traces import GpuTrace, analysis_json, engine_run, near, write
from tests.trace.test_properties import LONG, PROGRAM, QUIET, SAMPLED, program


def as_pairs(events, named=True, shuffled=False):
    """Return the events with begins and ends in the place of complete ones, where these nest.

    Operations of a GPU, which may cross others of their stream, stay complete.
    """
    by_thread: dict[object, list[dict]] = {}
    others = [e for e in events if e["ph"] != "X" or e["cat"] == "kernel"]
    for event in events:
        if event["ph"] == "X" and event["cat"] != "kernel":
            by_thread.setdefault((event["pid"], event["tid"]), []).append(event)
    written = list(others)
    for of_thread in by_thread.values():
        of_thread.sort(key=lambda e: (e["ts"], -e["dur"]))
        written += pairs_of(of_thread, named)
    if shuffled:  # files need not be in order of time; only equal times are in that of the file
        times = list(dict.fromkeys(e["ts"] for e in written))
        random.Random(0).shuffle(times)
        written.sort(key=lambda e: times.index(e["ts"]))
    return written


def whole_run(blocks):
    """Return an engine's run in whole microseconds, whose tags nest without rounding."""
    events = engine_run(blocks=blocks)
    for event in events:
        start, end = round(event["ts"]), round(event["ts"] + event["dur"])
        event["ts"], event["dur"] = start, end - start
    return events


def end_of(event):
    return event["ts"] + event["dur"]


def pairs_of(events, named):
    """Return the begins and ends of nested events, in order of time."""
    written: list[dict] = []
    stack: list[dict] = []

    def close(until):
        while stack and end_of(stack[-1]) <= until:
            event = stack.pop()
            end = {"ph": "E", "pid": event["pid"], "tid": event["tid"], "ts": end_of(event)}
            written.append(end | ({"name": event["name"], "cat": event["cat"]} if named else {}))

    for event in events:
        close(event["ts"])
        written.append({key: value for key, value in event.items() if key != "dur"} | {"ph": "B"})
        stack.append(event)
    close(float("inf"))
    return written


def figures(analysis):
    """Return the JSON of an analysis without the order of its file."""
    document = analysis_json(analysis)
    for key in ("trace", "events", "instances_detail"):
        del document[key]
    for tag in document["tags"]:
        del tag["instances_detail"]
    document["tags"].sort(key=lambda tag: tag["path"])
    return document


def check_same(folder, events, without=(), **options):
    complete = figures(analyze(write(folder / "x.json", events, config=None)))
    pairs = as_pairs(events, **options)
    paired = figures(analyze(write(folder / "be.json", pairs, config=None)))
    for key in without:
        complete.pop(key, None), paired.pop(key, None)
    assert any(event["ph"] == "B" for event in pairs)
    assert paired == near(complete)


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("shuffled", [True, False])
def test_pairs_of_a_run_give_the_figures_of_complete_events(tmp_path, named, shuffled):
    check_same(tmp_path, whole_run(3), named=named, shuffled=shuffled)


@settings(max_examples=40, suppress_health_check=QUIET)
@given(PROGRAM, st.booleans(), st.booleans())
def test_pairs_give_the_figures_of_complete_events(tmp_path, threads, named, shuffled):
    made = program(threads)
    if made.tags:
        check_same(tmp_path, made.events, named=named, shuffled=shuffled)


@pytest.mark.slow
@settings(max_examples=40, suppress_health_check=QUIET)
@given(LONG)
def test_pairs_in_chunks_give_the_figures_of_complete_events(tmp_path, small_chunks, threads):
    made = program(threads)
    if made.tags:
        with small_chunks():
            check_same(tmp_path, made.events, without=(*SAMPLED, "notes"))


def test_pairs_are_read_in_small_slices_too(tmp_path, small_pieces, monkeypatch):
    monkeypatch.setattr(columns, "SLICE_ROWS", 7)
    monkeypatch.setattr(columns, "IN_MEMORY_ROWS", 5)
    check_same(tmp_path, whole_run(2), named=False)


def event(phase, name, at, **more):
    cat = {"cat": "user_annotation"} if phase == "B" else {}
    return {"ph": phase, "name": name, "pid": 1, "tid": 1, "ts": 1000 + at} | cat | more


def read(path, events):
    path.write_text(json.dumps({"traceEvents": events}), encoding="utf-8")
    trace = read_trace(path)
    names = [trace.names[name] for name in trace.tags["name"].tolist()]
    return trace, dict(zip(names, trace.tags["dur"].tolist(), strict=True))


def test_ends_and_begins_without_partner_are_counted(tmp_path):
    events = [
        event("E", "early", 0),
        event("B", "outer", 1),
        event("B", "lost", 2),
        event("B", "inner", 3),
        event("E", "inner", 5),
        event("E", "nobody", 6),
        event("E", "outer", 9),
        event("B", "late", 20),
    ]
    trace, durations = read(tmp_path / "t.json", events)
    assert durations == {"outer": 8000, "inner": 2000}
    assert "2 begin events without an end were left out" in trace.left_out
    assert "2 end events without a begin were left out" in trace.left_out


def test_pairs_of_other_threads_do_not_meet(tmp_path):
    events = [event("B", "a", 0), event("E", "", 5, tid=2), event("E", "", 7)]
    trace, durations = read(tmp_path / "t.json", events)
    assert durations == {"a": 7000}
    assert trace.left_out == ["1 end events without a begin were left out"]


def test_arguments_of_the_end_are_taken_where_the_begin_has_none(tmp_path):
    events = [
        event("B", "cudaLaunchKernel", 1, cat="cuda_runtime"),
        event("E", "", 2, args={"correlation": 5}),
        event("B", "gemm", 4, tid=7, cat="kernel", args={"device": 0, "stream": 3}),
        event("E", "", 9, tid=7, args={"correlation": 5, "bytes": 12}),
    ]
    trace, _ = read(tmp_path / "t.json", events)
    assert trace.launches["correlation"].tolist() == [5]
    assert trace.device_ops[["correlation", "stream", "bytes", "dur"]].tolist() == [
        (5, 3, 12, 5000)
    ]


def test_tags_alone_of_pairs_are_those_of_the_whole(tmp_path):
    gpu = GpuTrace()
    with gpu.tag("step"), gpu.op_range("aten::mm"):
        gpu.launch("gemm", 10)
    path = write(tmp_path / "t.json", as_pairs(gpu.events, named=False), config=None)
    whole, tags = read_trace(path), read_trace(path, tags_only=True)
    assert tags.tags.tolist() == whole.tags.tolist()
    assert len(tags.tags) == 1
    assert not len(tags.ops) + len(tags.device_ops) + len(tags.launches)


def test_pair_with_an_impossible_time_is_counted(tmp_path):
    trace, durations = read(tmp_path / "t.json", [event("B", "a", 0), event("E", "a", 1e30)])
    assert durations == {}
    assert trace.losses == ["1 events with impossible times were left out"]
