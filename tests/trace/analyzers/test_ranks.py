"""The ranks of one program."""

import json
import subprocess
import sys

import numpy as np
import pytest

from glassworld.errors import TraceError
from glassworld.trace import analyze
from glassworld.trace.analyzers.caveats import find_caveats
from glassworld.trace.analyzers.collectives.bandwidth import bus_factor
from glassworld.trace.analyzers.collectives.matching import match_positions, matched_calls
from glassworld.trace.analyzers.collectives.records import Message, RankCollectives
from tests.support.rank_traces import BYTES, STARTS, rank_trace
from tests.support.traces import JSON_VALUES, CpuTrace, GpuTrace, invoke, write


def test_merge_ranks_puts_them_on_one_clock(tmp_path):
    paths = []
    for rank, late in enumerate((0.0, 3000.0)):
        clock = CpuTrace(base=1000.0 + 50_000 * rank)  # this rank's clock is ahead
        with clock.tag("train"):
            for i in range(4):
                at = 10_000.0 * i
                clock.event("cuda_runtime", "cudaLaunchKernel", at, 1, correlation=i + 1)
                start = at + 5 + late
                args = {"correlation": i + 1, "stream": 7}
                clock.event("kernel", "ncclDevKernel", start, at + 5000 - start, pid=0, **args)
            clock.wait(50_000)
        paths.append(write(tmp_path / f"rank{rank}.json", clock.events))
    merged = tmp_path / "merged.json"
    ranks = json.loads(invoke("merge", *paths, "-o", merged, "--json").output)
    assert ranks[1]["offset_ms"] == pytest.approx(50)
    assert ranks[0]["waited_ms"] == pytest.approx(4 * 3)
    assert ranks[1]["waited_ms"] == 0
    both = analyze(merged)
    assert both.coverage.attributed == 8
    starts = both.tree.rows["start"]
    assert starts[0] == starts[1]


def test_merge_ranks_without_collectives_starts_them_together(run, tmp_path):
    output = tmp_path / "both.json"
    assert "start at the same time" in invoke("merge", run(), run(), "-o", output).output


def test_ranks_without_collectives_say_so_and_show_no_empty_tables(run):
    output = invoke("ranks", run(), run()).output
    assert "Not all ranks have collectives" in output
    assert "Ranks that come last" not in output


def test_merged_ranks_with_one_device_number_have_streams_of_their_own(tmp_path):
    paths = []
    for rank in range(2):
        gpu = GpuTrace()
        for i in range(6):
            with gpu.tag(f"step_{i}"):
                gpu.launch("gemm", 100 + 20 * rank)
                gpu.launch("ncclDevKernel_AllReduce", 50)
                gpu.wait(200)
        paths.append(write(tmp_path / f"rank{rank}.json", gpu.events, config=None))
    invoke("merge", *paths, "-o", tmp_path / "both.json")
    alone, both = analyze(paths[0]), analyze(tmp_path / "both.json")
    assert alone.gpu is not None
    assert both.gpu is not None
    assert both.gpu.overlap_ns == both.gpu.covered_ops == 0
    assert both.gpu.busy_ns > alone.gpu.busy_ns
    assert not any("overlap others" in note for note in find_caveats(both))


@pytest.mark.parametrize("as_text", [False, True])
def test_merge_keeps_the_ids_of_ranks_apart_and_those_of_nothing(tmp_path, as_text):
    paths = []
    for rank in range(2):
        gpu = GpuTrace()
        with gpu.tag(f"rank {'ab'[rank]}"):
            for _ in range(4):
                gpu.launch("ncclDevKernel_AllReduce", 50)
                gpu.wait(100)
        gpu.event("cuda_runtime", "cudaDeviceSynchronize", gpu.now, 5, correlation=0)
        gpu.event("kernel", "lost", gpu.now, 5, pid=0, tid=7, correlation=0, stream=7)
        for event in gpu.events if as_text else ():
            if "correlation" in event["args"]:
                event["args"]["correlation"] = str(event["args"]["correlation"])
        paths.append(write(tmp_path / f"rank{rank}.json", gpu.events, config=None))
    invoke("merge", *paths, "-o", tmp_path / "both.json")
    both = analyze(tmp_path / "both.json")
    assert {row.name: row.gpu_kernels for row in both.patterns} == {"rank a": 4, "rank b": 4}
    assert both.coverage.launched == 8


@pytest.mark.parametrize("value", JSON_VALUES, ids=repr)
@pytest.mark.parametrize("place", ["ts", "dur"])
def test_ranks_with_odd_times_are_read_and_merged(tmp_path, place, value):
    paths = []
    for rank in range(2):
        gpu = GpuTrace()
        for _ in range(3):
            gpu.launch("ncclDevKernel_AllReduce", 50)
            gpu.wait(100)
        gpu.event("cpu_op", "record_param_comms", 5, 5, **{"Collective name": "allreduce"})
        gpu.events[-1][place] = value
        paths.append(write(tmp_path / f"rank{rank}.json", gpu.events, config=None))
    for command in (["merge", *paths, "-o", tmp_path / "both.json"], ["ranks", *paths]):
        result = invoke(*command)
        assert result.exit_code == 0, result.output
    assert analyze(tmp_path / "both.json").coverage.launched == 6


def ranks_report(folder, **options):
    paths = [rank_trace(folder, rank, **options) for rank in STARTS]
    return json.loads(invoke("ranks", *paths, "--json").output)


@pytest.mark.parametrize("on_kernel", [True, False])
def test_ranks_give_the_bandwidths_of_nccl_tests(tmp_path, on_kernel):
    rows = {row["name"]: row for row in ranks_report(tmp_path, on_kernel=on_kernel)["collectives"]}
    size = 2 * BYTES
    for name, seconds, factor in (
        ("all_reduce", (5000 - 4000) / 1e6, 2 * 3 / 4),
        ("all_gather", (12_400 - 12_000) / 1e6, 3 / 4),
    ):
        row = rows[name]
        assert (row["dtype"], row["bytes"], row["group_size"]) == ("BFloat16", size, 4)
        assert row["ms"] == pytest.approx(seconds * 1000)
        assert row["algorithm_gbps"] == pytest.approx(size / seconds / 1e9)
        assert row["bus_gbps"] == pytest.approx(factor * size / seconds / 1e9)
    assert rows["all_reduce"]["mean_skew_ms"] == pytest.approx(2)
    assert rows["all_gather"]["max_skew_ms"] == pytest.approx(4)


def test_ranks_name_the_last_one_and_the_tag_that_made_it_late(tmp_path):
    report = ranks_report(tmp_path)
    assert [rank["offset_ms"] for rank in report["ranks"]] == pytest.approx([0, 777, 1554, 2331])
    for rank, row in enumerate(report["ranks"]):
        waited = sum(max(s[i] for s in STARTS.values()) - STARTS[rank][i] for i in (0, 1))
        assert row["waited_ms"] == pytest.approx(waited / 1000)
    late = report["stragglers"][2]
    assert (late["last"], late["collectives"]) == (2, 2)
    assert late["alone_ms"] == pytest.approx((4000 - 2500 + 12_000 - 9000) / 1000)
    assert (late["tag"], late["where"]) == ("forward", "CPU")
    assert late["more_ms"] == pytest.approx((12_000 - 8500) / 1000)
    assert [row["last"] for row in report["stragglers"]] == [0, 0, 2, 0]


def test_ranks_without_sizes_have_no_bandwidth(tmp_path):
    rows = ranks_report(tmp_path, sizes=False)["collectives"]
    assert {row["name"] for row in rows} == {"all_reduce", "all_gather"}
    for row in rows:
        assert row["bytes"] is row["algorithm_gbps"] is row["bus_gbps"] is None
        assert row["max_skew_ms"] > 0


def test_ranks_in_other_groups_are_aligned_over_those_they_share(tmp_path):
    def messages(*groups):
        return [Message("all_reduce", group=group) for group in groups]

    def rank(starts, ends, groups):
        return RankCollectives(tmp_path, 0, np.array(starts), np.array(ends), messages(*groups))

    ranks = [
        rank([0], [100], ["01"]),
        rank([550, 700], [600, 760], ["01", "12"]),
        rank([1200], [1260], ["12"]),
    ]
    offsets, calls = matched_calls(ranks, match_positions(ranks).positions)
    assert offsets == [0, 500, 1000]
    assert [call.ranks for call in calls] == [(0, 1), (1, 2)]
    assert [call.skew_ns for call in calls] == [50, 0]


@pytest.mark.parametrize(
    ("name", "factor"),
    [("all_reduce", 1.75), ("reduce_scatter", 0.875), ("all_to_all", 0.875), ("broadcast", 1)],
)
def test_bus_factor_of_eight_ranks_is_that_of_nccl_tests(name, factor):
    assert bus_factor(name, 8) == factor


@pytest.mark.parametrize("value", JSON_VALUES)
def test_ranks_with_odd_arguments_are_read(tmp_path, value):
    args = {"Collective name": value, "dtype": value, "In msg nelems": value, "Group size": value}
    paths = []
    for rank in (0, 1):
        clock = CpuTrace()
        where = {"pid": 0, "tid": 7, "correlation": 1, "stream": 7}
        clock.event("kernel", "ncclDevKernel_AllReduce", 5, 10, **where, **args)
        paths.append(write(tmp_path / f"{rank}.json", clock.events, config=None))
    [row] = json.loads(invoke("ranks", *paths, "--json").output)["collectives"]
    assert row["calls"] == 1


def test_one_rank_is_one_clear_line(run):
    error = invoke("ranks", run()).exception
    assert isinstance(error, TraceError)
    assert "give at least two traces" in str(error)


def test_ranks_print_three_tables(tmp_path):
    printed = invoke("ranks", *(rank_trace(tmp_path, rank) for rank in STARTS)).output
    for title in ("Waits between ranks", "Collectives", "Ranks that come last"):
        assert title in printed


@pytest.mark.parametrize("command", ["ranks", "merge"])
def test_ranks_say_which_file_is_cut_short(tmp_path, command):
    whole, cut = (rank_trace(tmp_path, rank) for rank in list(STARTS)[:2])
    cut.write_bytes(cut.read_bytes()[:-40])
    output = ["-o", tmp_path / "merged.json"] if command == "merge" else []
    result = invoke(command, whole, cut, *output)
    assert result.exit_code == 0
    assert f"note {cut}: " in result.stderr
    assert str(whole) not in result.stderr


PAUSES = (1000, 1700, 900, 1300, 2100, 1150, 1600, 980, 1900, 1250, 1420, 1010)
ENDS = np.cumsum(PAUSES) + 5000
SIZES = (8, 8, 16, 8, 32, 8, 8, 64, 16, 8, 8, 32)


def recorded_from(folder, rank, first, last=12, ends=ENDS, sizes=SIZES, **options):
    """Write the trace of a rank that records some of the collectives; it is last at odd ones."""
    clock = CpuTrace(base=1_000_000.0 + 333_000.0 * rank)
    groups, seq = options.get("groups", ["0"] * len(ends)), options.get("seq", False)
    for i in range(first, last):
        late = rank == i % 2
        start, end = float(ends[i]) - (100 if late else 400), float(ends[i])
        clock.event("cuda_runtime", "cudaLaunchKernel", start - 9, 2, correlation=i + 1)
        args = {"Collective name": "allreduce", "dtype": "Float", "In msg nelems": sizes[i]}
        args |= {"Process Group Name": groups[i], "Process Group Ranks": "[0, 1]"}
        args |= {"Seq": groups[:i].count(groups[i]) + 70} if seq else {}
        where = {"pid": 0, "tid": 7, "correlation": i + 1, "stream": 7, "device": 0}
        name = "ncclDevKernel_AllReduce"
        clock.event("kernel", name, start, end - start, **where, **args)
    return write(folder / f"rank{rank}.json", clock.events, config=None)


def check_skews(paths, shared):
    """Check the clock and the waits of two ranks that share some collectives; return the notes."""
    result = invoke("ranks", *paths, "--json")
    report = json.loads(result.stdout)
    assert report["ranks"][1]["offset_ms"] == pytest.approx(333)
    waits = [sum(0.3 for i in shared if i % 2 != rank) for rank in (0, 1)]
    assert [rank["waited_ms"] for rank in report["ranks"]] == pytest.approx(waits)
    assert [row["last"] for row in report["stragglers"]] == [
        sum(i % 2 == rank for i in shared) for rank in (0, 1)
    ]
    notes = [rank["notes"] for rank in report["ranks"]]
    for path, of in zip(paths, notes, strict=True):
        assert all(f"note {path}: {note}" in result.stderr for note in of)
    assert not notes[0]
    return notes[1]


def test_collectives_with_sequence_numbers_match_by_them(tmp_path):
    even = 1000 * np.arange(1, 13)  # all alike: nothing but the numbers tells them apart
    options = {"ends": even, "sizes": [8] * 12, "seq": True}
    paths = [recorded_from(tmp_path, rank, 3 * rank, 10 + rank, **options) for rank in (0, 1)]
    assert check_skews(paths, range(3, 10)) == []


def test_sequence_numbers_of_groups_with_the_same_ranks_stay_apart(tmp_path):
    options = {"groups": list("aababbabaabb"), "seq": True}
    paths = [recorded_from(tmp_path, rank, 2 * rank, **options) for rank in (0, 1)]
    assert check_skews(paths, range(2, 12)) == []


def test_collectives_are_aligned_by_their_sizes(tmp_path):
    paths = [recorded_from(tmp_path, rank, 3 * rank) for rank in (0, 1)]
    (note,) = check_skews(paths, range(3, 12))
    assert "3 collectives later" in note
    assert "names and sizes tell" in note


@pytest.mark.parametrize(
    ("firsts", "lasts", "when"),
    [
        ((0, 2), (12, 12), "2 collectives later"),
        ((2, 0), (12, 12), "2 collectives earlier"),
        ((0, 2), (10, 12), "2 collectives later"),  # as many on both
    ],
)
def test_collectives_that_are_all_alike_are_aligned_by_their_ends(tmp_path, firsts, lasts, when):
    paths = [
        recorded_from(tmp_path, rank, firsts[rank], lasts[rank], sizes=[8] * 12) for rank in (0, 1)
    ]
    (note,) = check_skews(paths, range(max(firsts), min(lasts)))
    assert when in note
    assert "the times at which they ended tell" in note


def test_collectives_of_a_trace_that_ends_early_need_no_note(tmp_path):
    paths = [recorded_from(tmp_path, rank, 0, 12 - 3 * rank, sizes=[8] * 12) for rank in (0, 1)]
    assert check_skews(paths, range(9)) == []


def test_collectives_that_fit_in_several_ways_have_a_note(tmp_path):
    options = {"ends": 1000 * np.arange(1, 13), "sizes": [8] * 12}
    paths = [recorded_from(tmp_path, rank, 3 * rank, **options) for rank in (0, 1)]
    for command in (["ranks", *paths], ["merge", *paths, "-o", tmp_path / "both.json"]):
        result = invoke(*command)
        assert result.exit_code == 0
        assert "fit those of rank 0 in several ways" in result.stderr


def test_collectives_that_do_not_line_up_have_a_note(tmp_path):
    paths = [
        recorded_from(tmp_path, 0, 0),
        recorded_from(tmp_path, 1, 0, 9, sizes=[1, 2, 3, 4, 5, 6, 7, 8, 9]),
    ]
    assert "do not line up with those of rank 0" in invoke("ranks", *paths).stderr


def test_ranks_whose_sequence_numbers_do_not_meet_have_a_note(tmp_path):
    paths = [
        recorded_from(tmp_path, 0, 0, 5, seq=True),
        recorded_from(tmp_path, 1, 6, 12, seq=True),
    ]
    report = json.loads(invoke("ranks", *paths, "--json").stdout)
    for rank in report["ranks"]:
        assert rank["waited_ms"] == 0
        assert "no other trace has any" in rank["notes"][0]


GLOO_PROGRAM = """
import os, sys, time, torch
import torch.distributed as dist
from torch.profiler import profile, record_function

rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
cpu = [torch.profiler.ProfilerActivity.CPU]
with profile(activities=cpu):  # the first one takes long to start
    dist.barrier()
dist.barrier()  # so both begin together
with profile(activities=cpu) as profiler:
    for _ in range(4):
        with record_function("load_data"):
            time.sleep(0.3 * rank)
        dist.all_reduce(torch.ones(1000))
        dist.all_gather([torch.empty(4), torch.empty(4)], torch.ones(4))
profiler.export_chrome_trace(f"{folder}/rank{rank}.json")
dist.barrier()  # a rank whose peer is gone aborts
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_ranks_of_gloo_tell_who_waits_and_why(tmp_path):
    ranks = [
        subprocess.Popen([sys.executable, "-c", GLOO_PROGRAM, str(rank), str(tmp_path)])
        for rank in range(2)
    ]
    assert [rank.wait(120) for rank in ranks] == [0, 0]
    files = [tmp_path / f"rank{rank}.json" for rank in range(2)]
    report = json.loads(invoke("ranks", *files, "--json").output)
    assert [rank["collectives"] for rank in report["ranks"]] == [8, 8]
    names = {row["name"]: row["calls"] for row in report["collectives"]}
    assert names == {"all_reduce": 4, "all_gather": 4}
    assert 1000 < report["ranks"][0]["waited_ms"] < 2000  # four times 0.3 s
    late = report["stragglers"][1]
    assert late["last"] >= 4
    assert (late["tag"], late["where"]) == ("load_data", "CPU")
    assert 1000 < late["more_ms"] < 2000


def test_collectives_of_gloo_are_those_of_its_threads(tmp_path):
    paths = []
    for rank, late in enumerate((0.0, 400.0)):
        clock = CpuTrace(base=1000.0 + 9000 * rank)
        for i in range(3):
            with clock.tag("forward"):
                clock.op("aten::mm", 500 + late)
            end = 2000.0 * (i + 1)
            clock.event("cpu_op", "c10d::allreduce_", clock.now, 5)
            at = clock.now + 5
            clock.event("user_annotation", "gloo:all_reduce", at, end - at, tid=9)
            clock.now = end
        paths.append(write(tmp_path / f"rank{rank}.json", clock.events))
    report = json.loads(invoke("ranks", *paths, "--json").output)
    assert [rank["offset_ms"] for rank in report["ranks"]] == [0, 9]
    assert [rank["waited_ms"] for rank in report["ranks"]] == [pytest.approx(3 * 0.4), 0]
    (row,) = report["collectives"]
    assert (row["name"], row["calls"], row["max_skew_ms"]) == ("all_reduce", 3, 0.4)
    late = report["stragglers"][1]
    assert (late["last"], late["tag"], late["where"]) == (3, "forward", "CPU")
    assert late["more_ms"] == pytest.approx(3 * 0.4)
