"""The critical path, against known answers and against programs that really run faster."""

import itertools
import json
import multiprocessing
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import glassworld
from glassworld.errors import InputError, TraceError
from glassworld.trace import analyze
from glassworld.trace.analyzers.critical_path import PathFinder, reported_path
from glassworld.trace.timeline import merged
from tests.support import tiny
from tests.support.paths import SHARED
from tests.support.traces import CpuTrace, GpuTrace, invoke, write

TRACES = SHARED / "traces"
LAUNCH, DELAY, SYNC = 4.0, 6.0, 10.0


@dataclass
class Step:
    """Something that a program does: CPU work, a kernel, a blocking copy or a wait for all."""

    kind: str
    tag: str
    us: float = 0.0
    stream: int = 0


def run_program(steps, factors=None):
    """Run a program on a CPU and a GPU of the test's own; return its events and its time.

    A kernel starts when its stream is free and `DELAY` after its launch call; `factors` scale the
    work of tags. Nothing of this is known to the analyzer.
    """
    factors = factors or {}
    clock = CpuTrace(base=1000.0)
    free: dict[int, float] = {}
    correlation = itertools.count(1)
    end = 0.0
    for step in steps:
        scale = factors.get(step.tag, 1.0)
        with clock.tag(step.tag):
            if step.kind == "cpu":
                clock.op("aten::add", step.us * scale)
            elif step.kind == "sync":
                since = clock.now
                clock.now = max([clock.now, *free.values()]) + SYNC
                clock.event("cuda_runtime", "cudaDeviceSynchronize", since, clock.now - since)
            else:
                since, number = clock.now, next(correlation)
                clock.now += LAUNCH * scale
                start = max(free.get(step.stream, 0.0), clock.now + DELAY)
                free[step.stream] = start + step.us * scale
                name, cat = "cudaLaunchKernel", "kernel"
                if step.kind == "copy":
                    name, cat = "cudaMemcpyAsync", "gpu_memcpy"
                    clock.now = free[step.stream] + LAUNCH * scale
                clock.event("cuda_runtime", name, since, clock.now - since, correlation=number)
                args = {"correlation": number, "stream": step.stream, "device": 0}
                clock.event(cat, "work", start, step.us * scale, pid=0, tid=step.stream, **args)
        end = max(end, clock.now, *free.values()) if free else clock.now
    return clock.events, end


def found_path(tmp_path, events, faster=(), name="path.json"):
    finder = PathFinder(analyze(write(tmp_path / name, events, config=None)))
    return finder.critical_path(faster)


def kinds(path):
    return (
        path.cpu_ms,
        path.launch_delay_ms,
        path.gpu_ms,
        path.synchronize_ms,
        path.unexplained_ms,
    )


def test_critical_path_on_a_cpu_is_all_that_its_thread_does(tmp_path):
    clock = CpuTrace()
    with clock.tag("outer"):
        with clock.tag("first"):
            clock.op("aten::mm", 3000)
        clock.wait(1000)
        with clock.tag("second"):
            clock.op("aten::mm", 5000)
    clock.wait(2000)
    with clock.tag("third"):
        clock.op("aten::mm", 4000)
    path = found_path(tmp_path, clock.events, [("outer", 0.5), ("second", 0), ("third", 2)])
    assert kinds(path) == pytest.approx((13, 0, 0, 0, 2))
    assert path.length_ms == path.window_ms == pytest.approx(15)
    assert {tag.tag: tag.ms for tag in path.tags} == pytest.approx(
        {"second": 5, "third": 4, "first": 3, "outer": 1}
    )
    assert path.tags[0].share == pytest.approx(5 / 15)
    assert path.tags[0].half_run_ms == pytest.approx(12.5)
    assert [run.run_ms for run in path.what_if] == pytest.approx([10.5, 10, 19])


@pytest.mark.parametrize("function", ["nn.Module: Linear_0", None])
def test_critical_path_by_modules_or_operators_works_while_a_tag_is_open(tmp_path, function):
    clock = CpuTrace()
    for step in range(2):
        with clock.tag(f"ProfilerStep#{step}"):
            clock.wait(7000)
            if function:
                clock.event("python_function", function, clock.now, 3000)
            clock.op("aten::mm", 3000)
        clock.wait(500)
    path = found_path(tmp_path, clock.events)
    assert path.names == ("modules" if function else "operators")
    assert kinds(path) == pytest.approx((20, 0, 0, 0, 0.5))
    none = f"(no {path.names[:-1]})"
    assert sorted((tag.ms, tag.tag == none) for tag in path.tags) == [
        (pytest.approx(6), False),
        (pytest.approx(14), True),
    ]


def test_critical_path_of_a_gpu_bound_run_is_its_kernels(tmp_path):
    steps = [Step("kernel", "first", 500), Step("kernel", "second", 300), Step("sync", "end")]
    events, end = run_program(steps)
    path = found_path(tmp_path, events, [("first", 0.5)])
    assert kinds(path) == pytest.approx((0.004, 0.006, 0.8, 0.01, 0))
    assert path.length_ms == pytest.approx(end / 1000) == pytest.approx(0.82)
    assert {tag.tag: (tag.cpu_ms, tag.gpu_ms) for tag in path.tags} == {
        "first": pytest.approx((0.004, 0.5)),
        "second": pytest.approx((0, 0.3)),
    }
    assert path.what_if[0].run_ms == pytest.approx(0.82 - 0.252)


def test_half_the_time_gains_no_more_than_until_something_else_bounds_the_run(tmp_path):
    steps = [
        Step("kernel", "long", 1000, stream=1),
        Step("kernel", "other", 800, stream=2),
        Step("cpu", "host", 600),
        Step("sync", "end"),
    ]
    events, _ = run_program(steps)
    path = found_path(tmp_path, events, [("long", 0.5), ("other", 0.5)])
    assert path.what_if[0].gain_ms == pytest.approx(1.010 - 0.814 + 0.002)
    assert path.what_if[1].gain_ms == pytest.approx(0)
    assert "other" not in {tag.tag for tag in path.tags}


def test_faster_cpu_lets_a_late_synchronization_wait_for_the_gpu(tmp_path):
    steps = [Step("kernel", "gpu", 900), Step("cpu", "host", 1000), Step("sync", "end")]
    events, _ = run_program(steps)
    path = found_path(tmp_path, events, [("host", 0.0)])
    assert path.gpu_ms == 0
    assert path.what_if[0].run_ms == pytest.approx(0.004 + 0.006 + 0.9 + 0.01)


def test_blocking_copy_waits_for_the_kernels_before_it(tmp_path):
    events, end = run_program(
        [Step("kernel", "net", 700), Step("copy", "copy", 50), Step("cpu", "host", 100)]
    )
    path = found_path(tmp_path, events)
    assert path.gpu_ms == pytest.approx(0.75)
    assert path.cpu_ms == pytest.approx(0.004 + 0.004 + 0.1)
    assert path.length_ms == pytest.approx(end / 1000)


def test_thread_that_waits_for_another_is_not_on_the_path_meanwhile(tmp_path):
    clock = CpuTrace()
    with clock.tag("forward"):
        clock.op("aten::mm", 2000)
    clock.event("user_annotation", "worker", 2050, 3900, tid=2)
    clock.now = 6000.0
    with clock.tag("optimizer"):
        clock.op("aten::add", 1000)
    path = found_path(tmp_path, clock.events, [("worker", 0.5), ("forward", 0)])
    assert {tag.tag: tag.ms for tag in path.tags} == pytest.approx(
        {"worker": 3.9, "forward": 2, "optimizer": 1}
    )
    assert path.unexplained_ms == pytest.approx(0.1)
    assert [run.gain_ms for run in path.what_if] == pytest.approx([1.95, 2])


def test_thread_beside_another_does_not_wait_for_it(tmp_path):
    clock = CpuTrace()
    with clock.tag("main"):
        clock.op("aten::mm", 1000)
        clock.op("aten::mm", 1000)
    clock.event("user_annotation", "beside", 200, 1000, tid=2)
    path = found_path(tmp_path, clock.events)
    assert [tag.tag for tag in path.tags] == ["main"]


@pytest.mark.parametrize(
    "function",
    [
        "<built-in method acquire of _thread.lock object at 0x7fa7e46ee780>",
        "<built-in method get of _queue.SimpleQueue object at 0x7fa7f3208680>",
        "<built-in function select>",
    ],
)
def test_python_function_that_waits_is_no_work(tmp_path, function):
    clock = CpuTrace()
    with clock.tag("get_batch"):
        clock.op("aten::empty", 1000)
        clock.event("python_function", "queue.py(154): get", clock.now, 5000)
        clock.event("python_function", function, clock.now + 500, 4500)
        clock.wait(5000)
        clock.op("aten::stack", 2000)
    with clock.tag("train"):
        clock.op("aten::mm", 6000)
    path = found_path(tmp_path, clock.events, [("get_batch", 0.0)])
    assert kinds(path) == pytest.approx((9.5, 0, 0, 0, 4.5))
    assert {tag.tag: tag.ms for tag in path.tags} == pytest.approx({"get_batch": 3.5, "train": 6})
    assert path.what_if[0].run_ms == pytest.approx(10.5)


@pytest.mark.slow
def test_waits_that_torch_records_are_no_work(tmp_path):
    """Every tag waits for a timer of this test for nearly all of its time."""
    items, simple = queue.Queue[int](), queue.SimpleQueue[int]()
    event, (here, there) = threading.Event(), multiprocessing.Pipe()
    waits: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "queue": (items.get, lambda: items.put(1)),
        "simple_queue": (simple.get, lambda: simple.put(1)),
        "event": (event.wait, event.set),
        "pipe": (lambda: here.poll(10), lambda: there.send(1)),
    }
    with torch.profiler.profile(with_stack=True) as profiler:
        for name, (wait, end_wait) in waits.items():
            timer = threading.Timer(0.1, end_wait)
            timer.start()
            with torch.profiler.record_function(name):
                torch.ones(8).sum()
                wait()
            with torch.profiler.record_function(f"join_{name}"):
                timer.join()
        with torch.profiler.record_function("busy"):
            torch.ones(64, 64) @ torch.ones(64, 64)
    profiler.export_chrome_trace(str(tmp_path / "waits.json"))
    analysis = analyze(tmp_path / "waits.json")
    path = PathFinder(analysis, "tag").critical_path()
    on_path = {tag.tag: tag.ms for tag in path.tags}
    opened = {tag.name: tag.cpu_ms for tag in analysis.tags}
    for name in waits:
        assert opened[name] > 50
        assert on_path[name] < opened[name] / 2
    assert path.unexplained_ms > sum(opened[name] for name in waits) / 2


@pytest.mark.parametrize(
    "call", ["cuEventSynchronize", "urEventWait", "urQueueFinish", "hsa_signal_wait_scacquire"]
)
def test_call_that_waits_for_the_gpu_is_no_work(tmp_path, call):
    events, _ = run_program([Step("kernel", "net", 500), Step("cpu", "host", 100)])
    clock = CpuTrace(base=1000.0)
    clock.event("cuda_runtime", call, 104, 420)  # to 14 µs behind the kernel, which ends at 510
    path = found_path(tmp_path, [*events, *clock.events])
    assert kinds(path) == pytest.approx((0.004, 0.006, 0.5, 0.014, 0))


def test_time_in_the_queue_of_a_stream_is_that_of_the_kernel_in_front(tmp_path):
    steps = [Step("kernel", "first", 900), Step("kernel", "second", 600), Step("sync", "end")]
    events, _ = run_program(steps)
    launched = [e for e in events if e["name"] == "cudaLaunchKernel"]
    started = [e for e in events if e["name"] == "work"]
    queued = started[1]["ts"] - (launched[1]["ts"] + launched[1]["dur"])
    assert queued > 890
    path = found_path(tmp_path, events)
    assert {tag.tag: tag.ms for tag in path.tags} == pytest.approx({"first": 0.904, "second": 0.6})
    assert (path.launch_delay_ms, path.unexplained_ms) == pytest.approx((DELAY / 1000, 0))


def test_path_is_named_after_operators_where_there_are_no_tags(tmp_path):
    gpu = GpuTrace()
    with gpu.op_range("aten::linear"), gpu.op_range("aten::mm"):
        gpu.launch("gemm", 300)
    with gpu.op_range("aten::relu"):
        gpu.launch("relu", 100)
    gpu.call("cudaDeviceSynchronize", 500)
    path = found_path(tmp_path, gpu.events, [("aten::mm", 0.5)])
    assert path.names == "operators"
    assert path.tags[0].tag == "aten::linear"
    assert path.tags[0].gpu_ms == pytest.approx(0.3)
    assert path.what_if[0].gain_ms == pytest.approx(0.151)


tags = st.sampled_from(["a", "b", "c"])
durations = st.integers(1, 100).map(lambda n: 4.0 * n)
programs = st.lists(
    st.builds(
        Step,
        st.sampled_from(["cpu", "kernel", "kernel", "copy", "sync"]),
        tags,
        durations,
        st.integers(1, 3),
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=60)
@given(programs, tags, st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0]))
def test_what_if_predicts_the_program_run_again(tmp_path_factory, steps, tag, factor):
    steps = [Step("kernel", "warm-up", 4.0), *steps]  # shows how long a launch usually takes
    events, end = run_program(steps)
    wanted = tag in {step.tag for step in steps}
    folder = tmp_path_factory.mktemp("program")
    path = found_path(folder, events, [(tag, factor)] if wanted else [])
    assert sum(kinds(path)) == pytest.approx(path.length_ms)
    assert sum(t.ms for t in path.tags) == pytest.approx(path.cpu_ms + path.gpu_ms)
    assert path.length_ms == pytest.approx(end / 1000)
    assert path.length_ms <= path.window_ms + 1e-9
    host = {"cpu": 0.0, "sync": 0.0, "kernel": LAUNCH, "copy": 2 * LAUNCH}  # before it and behind
    computed = sum(host[step.kind] + step.us * (step.kind == "cpu") for step in steps)
    assert path.cpu_ms <= computed / 1000 + 1e-9  # no wait is work
    for t in path.tags:
        assert t.half_gain_ms is not None
        assert -1e-9 <= t.half_gain_ms <= t.ms / 2 + 1e-9
    if wanted:
        _, faster_end = run_program(steps, {tag: factor})
        assert path.what_if[0].run_ms == pytest.approx(faster_end / 1000, abs=3e-6 * len(steps))


def test_command_prints_the_path_and_the_runs_asked_for(tmp_path):
    events, end = run_program([Step("kernel", "net", 500), Step("sync", "end")])
    trace = write(tmp_path / "run.json", events, config=None)
    printed = invoke("critical-path", trace, "--faster", "net=0.5").output
    assert "If net took 0.5 times its time" in printed
    found = json.loads(invoke("critical-path", trace, "--faster", "net=0.5", "--json").output)
    assert found["length_ms"] == pytest.approx(end / 1000)
    assert found["what_if"][0]["gain_ms"] == pytest.approx(0.252)
    out = tmp_path / "analysis.json"
    invoke("report", trace, "--json", out)
    reported = json.loads(out.read_text(encoding="utf-8"))["critical_path"]
    assert reported["tags"] == found["tags"]


@pytest.mark.parametrize("factor", ["net", "net=fast", "=0.5", "net=-1", "net=nan"])
def test_factor_that_is_none_is_one_clear_line(tmp_path, factor):
    trace = write(tmp_path / "run.json", run_program([Step("cpu", "net", 5)])[0], config=None)
    error = invoke("critical-path", trace, "--faster", factor).exception
    assert isinstance(error, InputError)
    assert "such as VAE_Decode=0.5" in str(error)


def test_unknown_tag_is_one_clear_line_with_those_there_are(tmp_path):
    trace = write(tmp_path / "run.json", run_program([Step("cpu", "net", 5)])[0], config=None)
    error = invoke("critical-path", trace, "--faster", "nowhere=0.5").exception
    assert isinstance(error, TraceError)
    assert "nowhere: no such tag, module or operator" in str(error)


def test_report_of_a_trace_in_chunks_leaves_the_path_to_its_command(tmp_path, monkeypatch):
    events, end = run_program([Step("kernel", "net", 50), Step("cpu", "host", 9)] * 20)
    trace = write(tmp_path / "run.json", events, config=None)
    monkeypatch.setattr(merged, "SAMPLED_ROWS", 10)
    assert reported_path(analyze(trace)) is None
    printed = " ".join(invoke("report", trace).output.split())
    assert "see `glassworld trace critical-path`" in printed
    found = json.loads(invoke("critical-path", trace, "--json").output)
    assert found["length_ms"] == pytest.approx(end / 1000)


@pytest.mark.skipif(not TRACES.is_dir(), reason="shared/traces is not here")
@pytest.mark.parametrize("path", sorted(TRACES.glob("*.json.gz")), ids=lambda path: path.name)
def test_path_of_a_real_trace_adds_up_and_no_gain_exceeds_its_time(path):
    found = PathFinder(analyze(path)).critical_path()
    assert sum(kinds(found)) == pytest.approx(found.length_ms)
    assert sum(tag.ms for tag in found.tags) == pytest.approx(found.cpu_ms + found.gpu_ms)
    assert 0.99 * found.window_ms < found.length_ms <= found.window_ms
    for tag in found.tags[:8]:
        assert tag.half_gain_ms is not None
        assert 0 <= tag.half_gain_ms <= tag.ms / 2 + 1e-9


def measured_run(path, pause_s):
    """Run the tiny world with a pause after every block under a tag; return its trace."""
    world = tiny.world(denoising_steps=(1000, 666, 333))
    with glassworld.profile(path, mode="tags"), glassworld.tag("whole_run"):
        for _ in world.stream(tiny.picture(), num_latent_frames=12):
            with glassworld.tag("extra_work"):
                time.sleep(pause_s)
    return analyze(path)


@pytest.mark.slow
def test_run_without_extra_work_takes_the_time_that_the_slow_run_predicts(tmp_path):
    measured_run(tmp_path / "warm-up.json", 0)
    slow, fast = (
        min(
            (PathFinder(measured_run(tmp_path / f"{i}.json", pause_s)) for i in range(2)),
            key=lambda finder: int(finder.graph.end.max()),  # the run that others disturbed less
        )
        for pause_s in (1.0, 0.0)
    )
    path = slow.critical_path([("extra_work", 0.0), ("extra_work", 1.0)])
    predicted, same = path.what_if
    assert same.gain_ms == 0
    assert predicted.gain_ms >= 4000
    gained = path.length_ms - fast.critical_path().length_ms
    assert gained == pytest.approx(predicted.gain_ms, rel=0.4)


def test_merged_rank_waits_for_its_own_kernels_alone(tmp_path):
    """Both ranks call their GPU 0; the other's kernel ends last, but nobody waits for it."""
    clock = CpuTrace()
    for rank, (kernel, kernel_us, until) in enumerate((("mine", 100, 118), ("other", 104, 116))):
        pid, ids = f"rank {rank}: 1", {"correlation": rank + 1}
        clock.event("user_annotation", "step", 0, until, pid=pid)
        clock.event("cuda_runtime", "cudaLaunchKernel", 1, 4, pid=pid, **ids)
        on_device = {"stream": 7, "device": 0, "pid": f"rank {rank}: 0", "tid": 7}
        clock.event("kernel", kernel, 10, kernel_us, **on_device, **ids)
        clock.event("cuda_runtime", "cudaDeviceSynchronize", 6, until - 6, pid=pid)
    clock.event("user_annotation", "after", 118, 500, pid="rank 0: 1")
    path = found_path(tmp_path, clock.events)
    assert path.length_ms == pytest.approx(0.618)
    assert {row.tag: row.gpu_ms for row in path.tags if row.gpu_ms} == {"mine": 0.1}
