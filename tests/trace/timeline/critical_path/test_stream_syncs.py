"""Waits between streams, against programs of the test's own whose times are known."""

import itertools
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glassworld.trace import analyze
from glassworld.trace.analyzers.critical_path import PathFinder
from tests.support.traces import CpuTrace, invoke, write

LAUNCH, DELAY, CALL, SYNC = 4.0, 6.0, 1.0, 10.0


@dataclass
class Step:
    """Something that a program does.

    It is CPU work, a kernel, a `wait` of `stream` for `other`, or a call that waits: for an event
    that has just been recorded on `stream` (`event`), for `stream`, or for all of them (`device`).
    """

    kind: str
    tag: str
    us: float = 0.0
    stream: int = 7
    other: int = 20


class Machine:
    """A CPU and the streams of a GPU, and the events that a profiler would write of them."""

    def __init__(self, rows=True):
        self.clock, self.rows = CpuTrace(base=1000.0), rows
        self.reached: dict[int, float] = {}  # when each stream has done all that it was given
        self.correlation = itertools.count(1)

    def call(self, name, us):
        number = next(self.correlation)
        self.clock.event("cuda_runtime", name, self.clock.now, us, correlation=number)
        self.clock.now += us
        return number

    def sync_row(self, name, correlation, stream, **event):
        if self.rows:
            args = {"correlation": correlation, "stream": stream, "device": 0} | event
            start = self.clock.now
            self.clock.event("cuda_sync", name, start, 0, pid=0, tid=max(stream, 0), **args)

    def record(self, stream, scale):
        number = self.call("cudaEventRecord", CALL * scale)
        return {"wait_on_stream": stream, "wait_on_cuda_event_record_corr_id": number}

    def launch(self, stream, us, scale):
        number = next(self.correlation)
        since, self.clock.now = self.clock.now, self.clock.now + LAUNCH * scale
        args = {"correlation": number}
        self.clock.event("cuda_runtime", "cudaLaunchKernel", since, LAUNCH * scale, **args)
        start = max(self.reached.get(stream, 0.0), self.clock.now + DELAY)
        self.reached[stream] = start + us * scale
        args |= {"stream": stream, "device": 0}
        self.clock.event("kernel", "work", start, us * scale, pid=0, tid=stream, **args)

    def wait(self, stream, other, scale):
        event = self.record(other, scale)
        number = self.call("cudaStreamWaitEvent", CALL * scale)
        both = (self.reached.get(stream, 0.0), self.reached.get(other, 0.0))
        self.reached[stream] = max(both)
        self.sync_row("Stream Wait Event", number, stream, **event)

    def synchronize(self, name, row, stream, until, **event):
        until = max(self.clock.now, until) + SYNC
        number = self.call(name, until - self.clock.now)
        self.sync_row(row, number, stream, **event)

    def run(self, step, scale):
        reached = self.reached.get(step.stream, 0.0)
        if step.kind == "cpu":
            self.clock.op("aten::add", step.us * scale)
        elif step.kind == "kernel":
            self.launch(step.stream, step.us, scale)
        elif step.kind == "wait":
            self.wait(step.stream, step.other, scale)
        elif step.kind == "event":
            event = self.record(step.stream, scale)
            self.synchronize("cudaEventSynchronize", "Event Sync", -1, reached, **event)
        elif step.kind == "stream":
            self.synchronize("cudaStreamSynchronize", "Stream Sync", step.stream, reached)
        else:
            until = max(self.reached.values(), default=0.0)
            self.synchronize("cudaDeviceSynchronize", "Context Sync", -1, until)


def run_program(steps, factors=None, rows=True):
    """Return the events of a program and its time; `factors` scale the work of tags."""
    machine = Machine(rows)
    ends = [0.0]
    for step in steps:
        with machine.clock.tag(step.tag):
            machine.run(step, (factors or {}).get(step.tag, 1.0))
        machine.clock.now += 0.5
    events = machine.clock.events
    ends += [e["ts"] + e["dur"] - 1000 for e in events if e["cat"] != "cuda_sync"]
    return events, max(ends)


def found_path(folder, events, faster=()):
    path = write(folder / "t.json", events, config=None)
    return PathFinder(analyze(path)).critical_path(faster)


TWO_STREAMS = [
    Step("kernel", "long", 1000, stream=7),
    Step("kernel", "beside", 100, stream=20),
    Step("wait", "handover", stream=20, other=7),
    Step("kernel", "after", 500, stream=20),
    Step("device", "end"),
]


def test_kernel_behind_a_wait_depends_on_the_other_stream(tmp_path):
    events, end = run_program(TWO_STREAMS)
    path = found_path(tmp_path, events, [("long", 0.5), ("long", 0.0), ("beside", 0.0)])
    assert path.length_ms == pytest.approx(end / 1000)
    assert (path.stream_waits, path.ignored_syncs) == (1, 0)
    assert path.gpu_ms == pytest.approx(1.5)
    assert path.unexplained_ms == pytest.approx(0)
    half, nothing, beside = path.what_if
    for run, factors in ((half, {"long": 0.5}), (nothing, {"long": 0.0})):
        assert run.run_ms == pytest.approx(run_program(TWO_STREAMS, factors)[1] / 1000)
    assert half.gain_ms == pytest.approx(0.502)  # half a launch too
    assert beside.gain_ms == pytest.approx(0)


def test_without_the_rows_the_wait_is_unexplained(tmp_path):
    events, _ = run_program(TWO_STREAMS, rows=False)
    path = found_path(tmp_path, events, [("long", 0.5)])
    assert (path.stream_waits, path.ignored_syncs) == (0, 0)
    assert path.gpu_ms == pytest.approx(0.6)  # "beside" and "after"
    assert path.unexplained_ms > 0.8
    assert path.what_if[0].gain_ms < 0.01


def test_call_for_an_event_or_a_stream_waits_for_that_stream_alone(tmp_path):
    for kind in ("event", "stream"):
        steps = [
            Step("kernel", "short", 200, stream=7),
            Step("kernel", "other", 190, stream=20),
            Step(kind, "wait", stream=20),
            Step("cpu", "host", 500),
            Step("kernel", "late", 150, stream=7),
        ]
        events, end = run_program(steps)
        path = found_path(tmp_path, events, [("other", 0.5), ("short", 0.5)])
        assert path.length_ms == pytest.approx(end / 1000)
        assert [tag.tag for tag in path.tags[:2]] == ["host", "other"]
        other = run_program(steps, {"other": 0.5})[1]
        assert path.what_if[0].run_ms == pytest.approx(other / 1000)
        assert path.what_if[1].gain_ms == pytest.approx(0.002)  # its launch


def test_wait_passes_on_what_its_stream_waits_for(tmp_path):
    """An event on a stream that waits, but has no operation behind the wait yet."""
    steps = [
        Step("kernel", "long", 1000, stream=7),
        Step("wait", "first", stream=20, other=7),
        Step("wait", "second", stream=30, other=20),
        Step("kernel", "after", 100, stream=30),
        Step("event", "end", stream=30),
    ]
    events, end = run_program(steps)
    path = found_path(tmp_path, events, [("long", 0.5)])
    assert path.gpu_ms == pytest.approx(1.1)
    assert path.length_ms == pytest.approx(end / 1000)
    assert path.what_if[0].run_ms == pytest.approx(run_program(steps, {"long": 0.5})[1] / 1000)


@pytest.mark.parametrize(
    "broken",
    [
        {"correlation": None},
        {"wait_on_stream": None},
        {"wait_on_cuda_event_record_corr_id": None},
        {"wait_on_cuda_event_record_corr_id": 999},
        {"wait_on_stream": 4294967295},
        {"name": "Something Else"},
        {"args": None},
    ],
)
def test_rows_that_name_no_call_or_stream_are_ignored_and_counted(tmp_path, broken):
    events, _ = run_program(TWO_STREAMS)
    (row,) = [e for e in events if e["name"] == "Stream Wait Event"]
    for key, value in broken.items():
        (row if key in row else row["args"])[key] = value
    path = found_path(tmp_path, events)
    assert (path.stream_waits, path.ignored_syncs) == (0, 1)
    assert path.gpu_ms == pytest.approx(0.6)
    printed = " ".join(invoke("critical-path", tmp_path / "t.json").output.split())
    assert "1 records of waits (cuda_sync) were ignored" in printed


def test_rows_that_contradict_the_times_are_ignored(tmp_path):
    events, _ = run_program(TWO_STREAMS)
    long = next(e for e in events if e["name"] == "work")
    long["dur"] += 50  # the other stream's kernel begins before its end
    path = found_path(tmp_path, events)
    assert (path.stream_waits, path.ignored_syncs) == (0, 1)


def test_merged_ranks_wait_for_their_own_streams(tmp_path):
    slower = [Step(s.kind, s.tag, 1.5 * s.us, s.stream, s.other) for s in TWO_STREAMS]
    ranks = [
        write(tmp_path / f"rank{i}.json", run_program(steps)[0], config=None)
        for i, steps in enumerate((TWO_STREAMS, slower))
    ]
    merged = tmp_path / "merged.json"
    assert invoke("merge", *ranks, "-o", merged).exit_code == 0
    path = PathFinder(analyze(merged)).critical_path()
    assert (path.stream_waits, path.ignored_syncs) == (2, 0)
    assert path.gpu_ms == pytest.approx(2.25)


def test_rows_of_waits_change_no_other_figure(tmp_path):
    with_rows, without = (
        analyze(write(tmp_path / f"{rows}.json", run_program(TWO_STREAMS, rows=rows)[0]))
        for rows in (True, False)
    )
    assert with_rows.tags == without.tags
    assert with_rows.duration_ns == without.duration_ns
    assert with_rows.trace.left_out == without.trace.left_out == []


tags = st.sampled_from(["a", "b", "c"])
streams = st.sampled_from([7, 20, 30])
programs = st.lists(
    st.builds(
        Step,
        st.sampled_from(["cpu", "kernel", "kernel", "kernel", "wait", "wait", "event", "stream"]),
        tags,
        st.integers(1, 100).map(lambda n: 4.0 * n),
        streams,
        streams,
    ),
    min_size=1,
    max_size=20,
)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(programs, tags, st.sampled_from([0.25, 0.5, 1.0, 2.0]))
def test_what_if_predicts_the_streams_of_a_program_run_again(tmp_path_factory, steps, tag, factor):
    steps = [Step("kernel", "warm-up", 4.0), *steps, Step("device", "end")]
    events, end = run_program(steps)
    wanted = tag in {step.tag for step in steps}
    folder = tmp_path_factory.mktemp("program")
    path = found_path(folder, events, [(tag, factor)] if wanted else [])
    assert path.length_ms == pytest.approx(end / 1000)
    assert path.ignored_syncs == 0
    if wanted:
        _, again = run_program(steps, {tag: factor})
        assert path.what_if[0].run_ms == pytest.approx(again / 1000, abs=1e-5 * len(steps))
