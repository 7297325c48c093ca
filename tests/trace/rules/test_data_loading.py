"""The rule about data loading: figures equal those counted microsecond by microsecond."""

import gzip
import json
import random
import time

import pytest
import torch

from glassworld.trace import analyze
from glassworld.trace.timeline import merged
from tests.support.advised import findings, only
from tests.support.paths import SHARED
from tests.support.traces import CpuTrace, GpuTrace, write

SINGLE = "enumerate(DataLoader)#_SingleProcessDataLoaderIter.__next__"
WORKERS = "enumerate(DataLoader)#_MultiProcessingDataLoaderIter.__next__"
OWLV2 = SHARED / "traces" / "h100-owlv2.json.gz"
RULE = ("data-loading", "(the whole run)")


def counted(events):
    """Return the milliseconds in loaders on thread 1 without a kernel: all, and the longest."""
    busy, calls = set(), []
    for event in events:
        start = round(event["ts"] - events[0]["ts"])
        ticks = range(start, start + round(event["dur"]))
        if event["cat"] == "kernel":
            busy |= set(ticks)
        elif event["name"].startswith("enumerate(DataLoader)#") and event["tid"] == 1:
            calls.append(ticks)
    lost = [len(set(ticks) - busy) / 1e3 for ticks in calls]
    return sum(lost), max(lost)


def gpu_training(seed, loader=SINGLE, steps=30):
    """Return random steps, some of whose kernels still run while the next batch is loaded."""
    generator, gpu = random.Random(seed), GpuTrace()
    for number in range(steps):
        with gpu.tag(f"ProfilerStep#{number}"):
            gpu.wait(generator.randint(1, 5))
            with gpu.tag(loader):
                gpu.wait(generator.randint(100, 500))
            gpu.wait(generator.randint(1, 9))
            for _ in range(3):
                gpu.launch("gemm", generator.randint(20, 150), delay=0.0)
                gpu.wait(generator.randint(1, 9))
            with gpu.tag("Optimizer.step#SGD.step"):
                gpu.launch("sgd", generator.randint(1, 20), delay=0.0)
    with gpu.tag(loader):  # behind the last operation
        gpu.wait(2_000)
    return gpu.events


@pytest.mark.parametrize("seed", range(4))
def test_loading_counts_with_a_gpu_only_while_it_idles(tmp_path, small_chunks, seed):
    events = gpu_training(seed)
    total, longest = counted(events)
    path = write(tmp_path / "t.json", events, config=None)
    found = findings(path)[RULE]
    assert found.gain_ms == pytest.approx(total)
    assert found.value == pytest.approx(total * 1e6 / analyze(path).duration_ns)
    assert f"waits {total:,.1f} ms for data, with an idle GPU, in 31 calls" in found.what
    assert f"the longest wait takes {longest:,.1f} ms" in found.what
    with small_chunks():
        chunked = analyze(path)
    assert isinstance(chunked, merged.MergedAnalysis)
    lost = analyze(path).data_loading.lost_ns
    assert chunked.data_loading.lost_ns.tolist() == lost.tolist()
    assert lost.sum() / 1e6 == pytest.approx(total)


def test_loading_beside_the_gpus_work_costs_nothing(tmp_path):
    gpu = GpuTrace()
    for number in range(20):
        with gpu.tag(f"ProfilerStep#{number}"):
            gpu.launch("gemm", 1_000)
            with gpu.tag(WORKERS):
                gpu.wait(900)
            gpu.wait(98)
    path = write(tmp_path / "t.json", gpu.events, config=None)
    assert findings(path) == {}
    assert analyze(path).data_loading.lost_ns.sum() < 10_000  # before the first operation


def cpu_training(loader, loading=(3_000,) * 12, thread=1):
    """Return steps of 10 ms that load for so many microseconds; a loader may lie in a loader."""
    clock = CpuTrace(base=0)
    for number, dur in enumerate(loading):
        with clock.tag(f"ProfilerStep#{number}"):
            clock.event("user_annotation", loader, clock.now, dur, tid=thread)
            clock.event("user_annotation", SINGLE, clock.now + 10, dur / 2, tid=thread)
            clock.wait(dur)
            clock.op("aten::mm", 10_000 + 7 * (number % 5))
    return clock.events


@pytest.mark.parametrize(
    ("loader", "where", "change"),
    [
        (SINGLE, "in the run's own process", "worker processes: DataLoader(num_workers=...)"),
        (WORKERS, "in worker processes", "more workers (num_workers), persistent_workers=True"),
    ],
)
def test_loading_on_the_cpu_names_the_kind_of_loader(tmp_path, loader, where, change):
    found = only(write(tmp_path / "t.json", cpu_training(loader), config=None))
    assert (found.rule, found.tag) == RULE
    assert found.gain_ms == pytest.approx(36)
    assert found.value == pytest.approx(36 / 156, rel=1e-3)
    assert f"in 12 calls of a DataLoader that loads {where}" in found.what
    assert change in found.change


@pytest.mark.parametrize(("dur", "fires"), [(1_050, False), (1_200, True)])
def test_loading_is_a_finding_from_a_tenth_of_the_trace_on(tmp_path, dur, fires):
    path = write(tmp_path / "t.json", cpu_training(SINGLE, (dur,) * 12), config=None)
    assert (RULE in findings(path)) == fires


def test_loading_on_another_thread_than_the_steps_is_none(tmp_path):
    assert findings(write(tmp_path / "t.json", cpu_training(WORKERS, thread=3))) == {}


@pytest.mark.parametrize("around", ["ProfilerStep#{}", "train"])
@pytest.mark.parametrize(
    ("loader", "slow", "change"),
    [
        (WORKERS, 0, "the first call, in which the workers start"),
        (WORKERS, 7, "one call: look at what it reads"),
        (SINGLE, 0, "one call: look at what it reads"),
    ],
)
def test_one_long_call_has_advice_of_its_own_and_is_no_stall(
    tmp_path, around, loader, slow, change
):
    clock = CpuTrace()
    with clock.tag("run"):
        for i in range(12):
            with clock.tag(around.format(i)):
                with clock.tag(loader):
                    clock.wait(300_000 if i == slow else 100)
                with clock.tag("forward"):
                    clock.op("aten::mm", 10_000 + 7 * (i % 5))
    found = only(write(tmp_path / "t.json", clock.events, config=None))
    assert found.rule == "data-loading"
    assert change in found.change


def test_slow_call_among_few_others_is_not_named_again(tmp_path):
    clock = CpuTrace()
    for dur in (100_000, 100_000, 245_000, 100_000, 100_000):
        with clock.tag(SINGLE):
            clock.wait(dur)
        for i in range(4):
            with clock.tag("forward"):
                clock.op("aten::mm", 10 + i)
    assert only(write(tmp_path / "t.json", clock.events, config=None)).rule == "data-loading"


def test_pause_for_loading_between_two_tags_is_no_stall(tmp_path):
    clock = CpuTrace()
    with clock.tag("run"):
        for i in range(12):
            with clock.tag(WORKERS):
                clock.wait(300_000 if i == 7 else 100)
            with clock.tag("forward"):
                clock.op("aten::mm", 10_000 + 7 * (i % 5))
    assert only(write(tmp_path / "t.json", clock.events, config=None)).rule == "data-loading"


def test_a_stall_beside_short_loading_is_still_a_stall(tmp_path):
    clock = CpuTrace(base=0)
    for number in range(12):
        with clock.tag(f"ProfilerStep#{number}"):
            with clock.tag(SINGLE):
                clock.wait(200)
            clock.op("aten::mm", 10_000 + 7 * (number % 5))
            clock.wait(200_000 if number == 7 else 0)
    found = only(write(tmp_path / "t.json", clock.events, config=None))
    assert (found.rule, found.tag) == ("stall", "ProfilerStep#7")


@pytest.mark.parametrize("operator", [None, "aten::stack"])
@pytest.mark.parametrize("long", [(7,), range(20)])
def test_gaps_in_which_data_is_loaded_are_no_stall_and_no_host_work(tmp_path, operator, long):
    gpu = GpuTrace()
    for number in range(20):
        with gpu.tag(f"ProfilerStep#{number}"):
            with gpu.tag(SINGLE):
                dur = 20_000 if number in long else 20
                gpu.op(operator, dur) if operator else gpu.wait(dur)
                gpu.wait(1)
            for _ in range(10):
                gpu.launch("gemm", 300)
                gpu.wait(298)
    found = only(write(tmp_path / "t.json", gpu.events, config=None))
    assert found.rule == "data-loading"
    assert ("most of it in aten::stack" in found.what) == bool(operator)


def test_launches_that_are_late_do_not_promise_the_time_of_loading(tmp_path):
    gpu = GpuTrace()
    for number in range(20):
        with gpu.tag(f"ProfilerStep#{number}"):
            with gpu.tag(SINGLE):
                gpu.wait(300)
            for _ in range(20):
                gpu.launch("gemm", 10, delay=0.0)
                gpu.wait(38)
    path = write(tmp_path / "t.json", gpu.events, config=None)
    values = {rule: finding.value for (rule, _), finding in findings(path).items()}
    window_us = 20 * (300 + 20 * 40)
    assert values["data-loading"] == pytest.approx(20 * 300 / window_us)
    assert values["launch-bound"] == pytest.approx(20 * 20 * 30 / window_us, rel=0.01)


class _Slow(torch.utils.data.Dataset):
    def __len__(self):
        return 24

    def __getitem__(self, index):
        time.sleep(0.002)
        return torch.zeros(4)


@pytest.mark.parametrize(("workers", "kind"), [(0, "own process"), (1, "worker processes")])
def test_trace_of_a_real_loader_has_the_finding(tmp_path, workers, kind):
    model = torch.nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters())
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        for batch in torch.utils.data.DataLoader(_Slow(), batch_size=4, num_workers=workers):
            model(batch).sum().backward()
            optimizer.step()
    path = tmp_path / "t.json"
    profiler.export_chrome_trace(str(path))
    events = json.loads(path.read_bytes())["traceEvents"]
    durations = [event["dur"] for event in events if "DataLoader" in event["name"]]
    found = findings(path)[RULE]
    assert found.gain_ms == pytest.approx(sum(durations) / 1e3)
    assert f"in {len(durations)} calls of a DataLoader that loads in " in found.what
    assert kind in found.what


@pytest.mark.skipif(not OWLV2.is_file(), reason="shared/traces is not here")
def test_loader_of_a_real_trace_with_a_gpu_is_named_with_its_work():
    calls, work = [], []
    for event in json.loads(gzip.decompress(OWLV2.read_bytes()))["traceEvents"]:
        kind, name = event.get("cat"), event.get("name", "")
        if kind in ("kernel", "gpu_memcpy", "gpu_memset"):
            work.append((event["ts"], event["ts"] + event["dur"]))
        elif kind == "user_annotation" and name == SINGLE:
            calls.append((event["ts"], event["ts"] + event["dur"]))
    lost_us = 0.0
    for start, end in calls:
        for began, ended in sorted(work):
            lost_us += max(0.0, min(began, end) - start)
            start = max(start, min(ended, end))
        lost_us += end - start
    found = findings(OWLV2)[RULE]
    assert found.gain_ms == pytest.approx(lost_us / 1e3, abs=1e-3)
    assert "in 6 calls of a DataLoader that loads in the run's own process" in found.what
    assert found.what.endswith("most of it in <built-in function zoom_shift>")
