"""Every figure of a random small trace equals a slow computation in sets of microseconds."""

from dataclasses import asdict, dataclass, field
from statistics import median

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glassworld.trace import analyze
from glassworld.trace.analyzers.bottleneck import LEAST_OPERATIONS, find_bottleneck, gpu_use
from glassworld.trace.analyzers.operators import kernel_rows, operator_rows
from glassworld.trace.rules.rule import advise
from glassworld.trace.timeline.idle import SHORTEST_GAP_NS
from glassworld.trace.timeline.merged import MergedAnalysis
from tests.support.traces import analysis_json, near, write

BASE = 1_000_000


@dataclass
class Tag:
    """A tag on a thread; microseconds from the trace's base."""

    thread: int
    path: tuple[str, ...]
    start: int
    end: int = 0


@dataclass
class Operation:
    """A GPU operation, and the thread, start and end of its launch call (None without one)."""

    name: str
    stream: int
    start: int
    dur: int
    launch: tuple[int, int, int] | None


@dataclass
class Program:
    """What a random trace holds."""

    tags: list[Tag] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    calls: list[tuple[int, int]] = field(default_factory=list)
    negative: int = 0
    events: list[dict] = field(default_factory=list)

    def event(self, cat, name, thread, start, dur, **args):
        place = {"ph": "X", "cat": cat, "name": name, "pid": 1, "tid": thread}
        self.events.append(place | {"ts": BASE + start, "dur": dur, "args": args})


KERNEL = st.tuples(
    st.sampled_from(["gemm", "softmax", "Memcpy"]),
    st.integers(0, 2),  # the stream
    st.integers(0, 90),  # from the start of the launch call to the operation's
    st.integers(0, 60),
)
STEP = st.tuples(
    st.sampled_from(["open", "open", "close", "launch", "launch", "launch", "lost", "negative"]),
    st.integers(1, 40),  # how long until the next step
    st.integers(0, 30),  # how long the launch call takes
    st.lists(KERNEL, min_size=1, max_size=3),  # several are a graph's
    st.sampled_from("abc"),
)
PROGRAM = st.lists(st.lists(STEP, max_size=14), min_size=1, max_size=2)


def program(threads):
    """Return the program whose threads make these steps, one after another in time."""
    made, correlation = Program(), 0
    for thread, steps in enumerate(threads, 1):
        now = 7 * thread
        open_tags: list[Tag] = []
        for kind, pause, call, kernels, name in steps:
            if kind == "open":
                path = (*(open_tags[-1].path if open_tags else ()), name)
                open_tags.append(Tag(thread, path, now))
            elif kind == "close" and open_tags:
                close(made, open_tags.pop(), now)
            elif kind in ("launch", "lost"):
                correlation += 1
                launch(made, thread, now, call, kernels, correlation, kind == "launch")
            elif kind == "negative":
                made.negative += 1
                made.event("kernel", "broken", 7, now, -5, correlation=0, stream=0, device=0)
            now += max(pause, call + 1)
        while open_tags:
            close(made, open_tags.pop(), now)
            now += 1
    return made


def close(made, tag, now):
    tag.end = now
    made.tags.append(tag)
    made.event("user_annotation", tag.path[-1], tag.thread, tag.start, now - tag.start)


def launch(made, thread, now, call, kernels, correlation, known):
    if known:
        made.calls.append((now, now + call))
        made.event("cuda_runtime", "cudaLaunch", thread, now, call, correlation=correlation)
    for name, stream, delay, dur in kernels:
        at = (thread, now, now + call) if known else None
        made.operations.append(Operation(name, stream, now + delay, dur, at))
        place = {"correlation": correlation, "stream": stream, "device": 0}
        made.event("kernel", name, 100 + stream, now + delay, dur, **place)


def span_of(operations):
    """Return the microseconds from the first start to the last end."""
    ends = [op.start + op.dur for op in operations]
    return set(range(min((op.start for op in operations), default=0), max(ends, default=0)))


def ticks(operations):
    return {t for op in operations for t in range(op.start, op.start + op.dur)}


def innermost(made, op):
    """Return the deepest tag around the launch; of two that touch, the later one."""
    if op.launch is None:
        return None
    thread, at, _ = op.launch
    around = [t for t in made.tags if t.thread == thread and t.start <= at <= t.end]
    return max(around, key=lambda tag: (tag.start, len(tag.path)), default=None)


def check(path, made):
    analysis = analyze(path)
    operations = sorted(made.operations, key=lambda op: op.start)
    owner = [innermost(made, op) for op in operations]
    first = min(
        [tag.start for tag in made.tags]
        + [op.start for op in operations]
        + [start for start, _ in made.calls]
    )
    last = max(
        [tag.end for tag in made.tags]
        + [op.start + op.dur for op in operations]
        + [end for _, end in made.calls]
    )
    busy = ticks(operations)
    assert analysis.duration_ns == 1000 * (last - first)
    coverage = analysis.coverage
    assert coverage.gpu_ops == len(operations)
    assert coverage.launched == sum(op.launch is not None for op in operations)
    assert coverage.attributed == sum(tag is not None for tag in owner)
    assert any("negative" in note for note in analysis.trace.left_out) == bool(made.negative)
    if operations:
        use = gpu_use(analysis)
        assert use
        assert use.busy_ms == pytest.approx(len(busy) / 1000)
        assert use.busy_ms + use.idle_ms == pytest.approx(use.window_ms)
        assert use.first_op_ms == pytest.approx((operations[0].start - first) / 1000)
    check_tags(analysis, made, operations, owner)
    check_idle(analysis, operations, first, busy)
    for row in kernel_rows(analysis):
        named = [op for op in operations if op.name == row.name]
        assert row.calls == len(named)
        assert row.ms == pytest.approx(sum(op.dur for op in named) / 1e3)


def check_tags(analysis, made, operations, owner):
    added: list[int] = []
    done: set[int] = set()
    for op in operations:
        added.append(len(ticks([op]) - done))
        done |= ticks([op])
    rows = {row.path: row for row in analysis.tags}
    assert set(rows) == {tag.path for tag in made.tags}
    for path, row in rows.items():
        instances = [tag for tag in made.tags if tag.path == path]
        inside = [
            [op for op, own in zip(operations, owner, strict=True) if own and is_in(own, tag)]
            for tag in instances
        ]
        everything = [op for of_one in inside for op in of_one]
        span = set().union(*(span_of(of_one) for of_one in inside))
        own = [i for i, tag in enumerate(owner) if tag and tag.path == path]
        assert row.instances == len(instances)
        assert row.gpu_kernels == len(everything)
        assert row.cpu_ms == pytest.approx(sum(tag.end - tag.start for tag in instances) / 1e3)
        assert row.gpu_busy_ms == pytest.approx(len(ticks(everything)) / 1e3)
        assert row.gpu_sum_ms == pytest.approx(sum(op.dur for op in everything) / 1e3)
        assert row.gpu_span_ms == pytest.approx(len(span) / 1e3)
        assert row.gpu_idle_ms == pytest.approx((len(span) - len(ticks(everything))) / 1e3)
        assert row.gpu_self_ms == pytest.approx(sum(added[i] for i in own) / 1e3)
        queued = [max(0, operations[i].start - operations[i].launch[2]) for i in own]
        expected = median(queued) / 1e3 if queued else 0.0
        assert row.launch_delay_ms == pytest.approx(expected)
    outside = sum(a for a, tag in zip(added, owner, strict=True) if tag is None)
    whole = sum(row.gpu_self_ms for row in rows.values()) + outside / 1e3
    assert whole == pytest.approx(len(ticks(operations)) / 1e3)


def is_in(inner, outer):
    inside = outer.start <= inner.start and inner.end <= outer.end
    return inner.thread == outer.thread and inside and inner.path[: len(outer.path)] == outer.path


def check_idle(analysis, operations, first, busy):
    """Check the gaps, which end with an operation's start or the first launch call's end."""
    gaps, queued, until = [], 0.0, first
    for op in operations:
        start, end = until, op.start
        until = max(until, op.start + op.dur)
        called = None if op.launch is None else min(max(op.launch[2], start), max(start, end))
        if called is not None and start == first:
            end = min(end, called) if end > start else end
        if (end - start) * 1000 >= SHORTEST_GAP_NS:
            gaps.append((end - start) / 1e3)
            if called is not None and called < (start + end) / 2:
                queued += gaps[-1]
    assert sorted(gap.ms for gap in analysis.gaps) == pytest.approx(sorted(gaps))
    assert analysis.idle.queued_ms == pytest.approx(queued)
    verdict = find_bottleneck(analysis)
    assert (verdict is None) == (len(operations) < LEAST_OPERATIONS)
    if verdict:
        use = gpu_use(analysis)
        assert use
        assert 0 <= verdict.idle_ms <= use.idle_ms + 1e-9
    for finding in advise(analysis):
        rows = [row for row in analysis.patterns if finding.tag in (row.name, row.pattern)]
        times = [sum(row.gpu_busy_ms for row in rows), sum(row.gpu_idle_ms for row in rows)]
        assert not rows or not operations or finding.gain_ms <= max(times) + 1e-9
        assert finding.gain_ms <= analysis.duration_ns / 1e6


QUIET = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]


@settings(max_examples=60, suppress_health_check=QUIET)
@given(PROGRAM)
def test_every_figure_equals_an_independent_one(tmp_path, threads):
    run_program(tmp_path, threads)


@pytest.mark.slow
@settings(max_examples=1500, suppress_health_check=QUIET)
@given(st.lists(st.lists(STEP, max_size=60), min_size=1, max_size=4))
def test_every_figure_equals_an_independent_one_on_larger_traces(tmp_path, threads):
    run_program(tmp_path, threads)


def run_program(folder, threads):
    made = program(threads)
    if made.tags or made.operations or made.calls:
        check(write(folder / "t.json", made.events, config=None), made)


SAMPLED = (
    *("blocks", "drift", "steps", "first_steps"),
    *("instances_detail", "advice", "critical_path"),
)
"""What an analysis in chunks has of its most unusual chunks only."""


def add_rest(made):
    """Add what the figures do not depend on in `check`: operators, modules, memory, steps."""
    for number, tag in enumerate(sorted(made.tags, key=lambda tag: (tag.start, len(tag.path)))):
        dur = tag.end - tag.start
        for cat, name in (
            ("cpu_op", f"aten::{tag.path[-1]}"),
            ("python_function", f"nn.Module: {tag.path[-1].title()}_{number}"),
        ):
            made.event(cat, name, tag.thread, tag.start, dur)
        if len(tag.path) == 1:
            made.event("user_annotation", f"ProfilerStep#{number}", tag.thread, tag.start, dur)
    for number, op in enumerate(made.operations):
        if op.launch:
            thread, start, _ = op.launch
            name = ("autograd::engine::evaluate_function: X", "aten::mul")[number % 2]
            made.event("cpu_op", name, thread, start, op.dur)
        args = {"Total Allocated": 1000 * (number % 7) << 20, "Device Type": 1, "Device Id": 0}
        moment = {"ph": "i", "cat": "cpu_instant_event", "name": "[memory]", "args": args}
        made.events.append(moment | {"pid": 1, "tid": 1, "ts": BASE + op.start, "s": "t"})


def check_chunks(folder, threads, small_chunks):
    made = program(threads)
    add_rest(made)
    path = write(folder / "t.json", made.events, config=None)
    complete = analyze(path)
    whole = analysis_json(complete)
    with small_chunks(kept=10**9):
        assert analysis_json(analyze(path)) == whole
    with small_chunks():
        chunked = analyze(path)
        document = analysis_json(chunked)
    sampled = isinstance(chunked, MergedAnalysis)
    for of in (whole, document):
        of["notes"] = [note for note in of["notes"] if "sums are of all" not in note]
        for tag in of["tags"]:
            del tag["instances_detail"]
    for row in complete.patterns:
        for rows_of in (operator_rows, kernel_rows):
            rows = {r.name: near(asdict(r)) for r in rows_of(complete, row.pattern)}
            assert {r.name: asdict(r) for r in rows_of(chunked, row.pattern)} == rows
    for key, value in whole.items():
        if not (sampled and key in SAMPLED):
            assert document[key] == near(value), key
    return sampled


LONG = st.lists(st.lists(STEP, min_size=20, max_size=50), min_size=1, max_size=3)


@settings(max_examples=5, suppress_health_check=QUIET)
@given(LONG)
def test_every_figure_of_a_trace_in_chunks_is_that_of_the_whole(tmp_path, small_chunks, threads):
    check_chunks(tmp_path, threads, small_chunks)


@pytest.mark.slow
@settings(max_examples=100, suppress_health_check=QUIET)
@given(LONG)
def test_every_figure_of_many_traces_in_chunks_is_that_of_the_whole(
    tmp_path, small_chunks, threads
):
    check_chunks(tmp_path, threads, small_chunks)
