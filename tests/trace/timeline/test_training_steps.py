"""Training steps: each figure equals one that is counted microsecond by microsecond."""

import random

import pytest

from glassworld.trace import analyze
from glassworld.trace.timeline import merged
from tests.support.traces import CpuTrace, GpuTrace, analysis_json, invoke, write

MAIN, ENGINE = 1, 2
NODE = "autograd::engine::evaluate_function: MulBackward0"


class Training(GpuTrace):
    """Random training steps; it remembers ranges and kernels in whole microseconds."""

    def __init__(self, seed, tagged=True, engine=ENGINE):
        super().__init__()
        self.base = 1_000_000
        self.random, self.tagged, self.engine = random.Random(seed), tagged, engine
        self.steps, self.updates, self.nodes = [], [], []
        self.begins, self.kernels, self.stream_free = [], [], {}

    def range(self, cat, name, thread, body):
        start = int(self.now)
        index = len(self.events)
        body()
        self.now += self.random.randint(1, 4)
        self.event(cat, name, start, self.now - start, tid=thread)
        self.events.insert(index, self.events.pop())
        return start, int(self.now)

    def operators(self, thread, count):
        for _ in range(count):
            self.begins.append((thread, int(self.now)))
            self.range("cpu_op", "aten::mul", thread, lambda: self.kernel(thread))
            self.now += self.random.choice([0, 0, 1, 9])

    def kernel(self, thread):
        self.correlation += 1
        launch, call = int(self.now), self.random.randint(0, 3)
        args = {"correlation": self.correlation}
        self.event("cuda_runtime", "cudaLaunchKernel", launch, call, tid=thread, **args)
        stream, dur = self.random.randint(0, 1), self.random.randint(0, 25)
        start = max(launch + self.random.randint(0, 20), self.stream_free.get(stream, 0))
        self.stream_free[stream] = start + dur
        place = {"stream": stream, "device": 0}
        self.event("kernel", "mul", start, dur, pid=0, tid=stream, **args, **place)
        self.kernels.append((launch, start, start + dur))
        self.now += call

    def backward(self):
        for _ in range(self.random.randint(1, 3)):
            count = self.random.randint(0, 2)
            self.begins.append((self.engine, int(self.now)))
            self.nodes.append(
                self.range(
                    "cpu_op", NODE, self.engine, lambda count=count: self.operators(ENGINE, count)
                )
            )
            self.now += self.random.choice([0, 3])
            if self.random.random() < 0.2:
                self.operators(MAIN, 1)

    def step(self):
        for _ in range(self.random.randint(1, 2)):
            self.operators(MAIN, self.random.randint(1, 3))
            self.backward()
        self.updates.append(
            self.range(
                "user_annotation", "Optimizer.step#SGD.step", MAIN, lambda: self.operators(MAIN, 2)
            )
        )
        self.now += self.random.choice([0, 2])

    def run(self, steps):
        for number in range(steps):
            if self.tagged:
                name = f"ProfilerStep#{number}"
                self.steps.append(self.range("user_annotation", name, MAIN, self.step))
                self.now += self.random.choice([0, 5])
            else:
                self.step()
        return self

    def windows(self):
        """Return the steps; without tags each ends with its optimizer."""
        if self.tagged:
            return self.steps
        starts = [min(start for _, start in self.begins), *(end for _, end in self.updates)]
        return list(zip(starts, [end for _, end in self.updates], strict=False))

    def part(self, tick):
        """Return the part of a step that a microsecond belongs to."""
        if any(start <= tick < end for start, end in self.updates):
            return "optimizer"
        if any(start <= tick < end for start, end in self.nodes):
            return "backward"
        before = max((end for _, end in self.nodes if end <= tick), default=None)
        after = min((start for start, _ in self.nodes if start > tick), default=None)
        if before is None or after is None:
            return "forward"
        marks = [moment for ends in (*self.steps, *self.updates) for moment in ends]
        marks += [start for thread, start in self.begins if thread == MAIN]
        return "forward" if any(before <= mark < after for mark in marks) else "backward"

    def expected(self):
        """Return one dictionary of figures per step, by part."""
        idle, until, rows = {}, min(start for _, start in self.begins), []
        if self.tagged:
            until = min(until, self.steps[0][0])
        busy: dict[int, int] = {}
        for i in sorted(range(len(self.kernels)), key=lambda i: self.kernels[i][1]):
            _, start, end = self.kernels[i]
            idle[i] = max(0, start - until)
            busy[i] = max(0, end - max(start, until))
            until = max(until, end)
        for start, end in self.windows():
            parts = {name: [0, 0, 0, 0] for name in ("forward", "backward", "optimizer")}
            for tick in range(start, end):
                parts[self.part(tick)][0] += 1
            for i, (launch, *_) in enumerate(self.kernels):
                if start <= launch < end:
                    of = parts[self.part(launch)]
                    of[1:] = [of[1] + busy[i], of[2] + idle[i], of[3] + 1]
            rows.append(parts)
        return rows


FIELDS = ("cpu_ms", "gpu_busy_ms", "gpu_idle_ms")


def check(steps, expected):
    assert len(steps) == len(expected)
    for step, parts in zip(steps, expected, strict=True):
        for name, figures in parts.items():
            part = getattr(step, name)
            measured = [1e3 * getattr(part, field) for field in FIELDS]
            assert measured == pytest.approx(figures[:3]), (step.name, name)
            assert part.gpu_kernels == figures[3]
        for field in (*FIELDS, "gpu_kernels"):
            whole = sum(getattr(getattr(step, name), field) for name in parts)
            assert getattr(step, field) == pytest.approx(whole)


@pytest.mark.parametrize("engine", [MAIN, ENGINE])
@pytest.mark.parametrize("tagged", [True, False])
def test_parts_of_steps_equal_those_counted_by_the_microsecond(tmp_path, tagged, engine):
    for seed in range(4):
        training = Training(seed, tagged, engine).run(4)
        path = write(tmp_path / "t.json", training.events, config=None)
        check(analyze(path).training_steps, training.expected())


def test_steps_of_a_trace_in_chunks_are_those_of_the_whole(tmp_path, small_chunks):
    training = Training(5).run(12)
    path = write(tmp_path / "t.json", training.events, config=None)
    with small_chunks():
        chunked = analyze(path)
    assert isinstance(chunked, merged.MergedAnalysis)
    check(chunked.training_steps, training.expected())


def test_steps_of_two_processes_in_one_file_stay_apart(tmp_path):
    alone = Training(6).run(3)
    events = alone.events + [
        event
        | {"pid": event["pid"] + 10}
        | {"args": {k: v + 10_000 if k == "correlation" else v for k, v in event["args"].items()}}
        for event in alone.events
    ]
    analysis = analyze(write(tmp_path / "t.json", events, config=None))
    cpu = [step.backward.cpu_ms for step in analysis.training_steps]
    expected = [parts["backward"][0] / 1e3 for parts in alone.expected()]
    assert cpu == pytest.approx([value for value in expected for _ in range(2)])
    assert {step.name for step in analysis.training_steps} >= {"ProfilerStep#0 of 11"}


def test_steps_are_in_the_terminal_and_the_json(tmp_path):
    path = write(tmp_path / "t.json", Training(1).run(3).events, config=None)
    rows = analysis_json(analyze(path))["training_steps"]
    assert [row["name"] for row in rows] == [f"ProfilerStep#{i}" for i in range(3)]
    assert set(rows[0]["backward"]) == {*FIELDS, "gpu_kernels"}
    output = invoke("training", path).output
    assert "optimizer" in output
    assert "ProfilerStep#2" in output


def test_trace_without_steps_has_no_training_steps(run):
    assert analyze(run(blocks=1)).training_steps == []
    assert "no steps" in invoke("training", run(blocks=1)).output


def test_data_loading_in_the_forward_pass_is_named(tmp_path):
    gpu = GpuTrace()
    loader = "enumerate(DataLoader)#_MultiProcessingDataLoaderIter.__next__"
    with gpu.tag(loader):
        gpu.wait(9_000)  # before the first step: not part of any
    for number in range(2):
        with gpu.tag(f"ProfilerStep#{number}"):
            with gpu.tag(loader):
                gpu.wait(3_000)
            gpu.op("aten::mm", 1_000)
            gpu.op(NODE, 2_000)
    path = write(tmp_path / "t.json", gpu.events, config=None)
    forward = sum(step.forward.cpu_ms for step in analyze(path).training_steps)
    shown = " ".join(invoke("training", path).output.split())
    assert f"Forward includes data loading: 6.00 of its {forward:.2f} ms of CPU time" in shown
    assert 8 <= forward < 9


COLLECTIVE = "gloo:all_reduce"
COPY = "torch.distributed.ddp.reducer::copy_bucket_to_grad"


@pytest.mark.parametrize("logs", [False, True])
def test_backward_pass_waits_for_its_collectives_until_the_thread_goes_on(tmp_path, logs):
    cpu = CpuTrace()
    for number in range(2):
        with cpu.tag(f"ProfilerStep#{number}"):
            cpu.event("user_annotation", COLLECTIVE, cpu.now, 500, tid=3)  # none of a backward pass
            cpu.op("aten::mm", 1_000)
            cpu.op(NODE, 2_000)
            cpu.event("user_annotation", COLLECTIVE, cpu.now + 10, 5_000, tid=3)
            if logs:
                cpu.wait(3_000)
                cpu.op("aten::item", 1_000)
                cpu.wait(1_010)
            else:
                cpu.wait(5_010)
                cpu.op("aten::as_strided", 20)
                cpu.op(COPY, 30)
            with cpu.tag("Optimizer.step#SGD.step"):
                cpu.op("aten::add_", 400)
    backward, rest = (5_000, 1_000 + 2_010) if logs else (7_010 + 30, 1_000 + 20)
    for step in analyze(write(tmp_path / "t.json", cpu.events, config=None)).training_steps:
        parts = [1e3 * part.cpu_ms for part in (step.forward, step.backward, step.optimizer)]
        assert parts == pytest.approx([rest, backward, 400])
