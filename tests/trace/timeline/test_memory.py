"""Memory by tag."""

import pytest

from glassworld.trace import analyze
from glassworld.trace.reading import columns
from glassworld.trace.writing.perfetto_packets import write_perfetto
from tests.support.traces import CpuTrace, GpuTrace, write


def test_tag_memory_does_not_depend_on_slices(tmp_path, monkeypatch):
    clock, held_now = CpuTrace(), 0

    def allocate(size):
        nonlocal held_now
        held_now += size
        args = {"Total Allocated": held_now, "Bytes": size, "Device Type": 0, "Device Id": -1}
        clock.events.append(
            {"ph": "i", "cat": "cpu_instant_event", "name": "[memory]", "pid": 1, "tid": 1}
            | {"ts": round(clock.base + clock.now, 3), "s": "t", "args": args}
        )
        clock.wait(1)

    mib = 2**20
    with clock.tag("outer"):
        clock.wait(1)
        allocate(5 * mib)
        for _ in range(3):
            with clock.tag("inner"):
                clock.wait(1)
                allocate(7 * mib)
                allocate(-6 * mib)
    path = write(tmp_path / "memory.json", clock.events)
    for rows in (1 << 18, 2):
        monkeypatch.setattr(columns, "SLICE_ROWS", rows)
        found = {row.tag: row for row in analyze(path).memory}
        assert found["inner"].peak_mib == found["outer"].peak_mib == 5 + 2 + 7
        assert found["inner"].kept_mib == 1
        assert found["outer"].kept_mib == 8


def test_memory_of_a_run_without_tags_is_of_the_whole_and_of_outermost_operators(tmp_path):
    gpu = GpuTrace()
    for i in range(3):
        with gpu.op_range("aten::linear"):
            gpu.wait(5)
            with gpu.op_range("aten::mm"):
                gpu.memory((10 + i) << 20, 0)
                gpu.wait(5)
        gpu.wait(10)
    gpu.memory(1 << 20, 0)
    rows = {row.tag: row for row in analyze(write(tmp_path / "t.json", gpu.events)).memory}
    assert set(rows) == {"(the whole run)", "aten::linear"}
    assert rows["(the whole run)"].peak_mib == rows["aten::linear"].peak_mib == 12
    assert rows["aten::linear"].kept_mib == pytest.approx((10 + 1 + 1) / 3)


def test_memory_without_recorded_totals_adds_up_the_changes(tmp_path):
    clock, mib = CpuTrace(), 2**20

    def change(device, size):
        args = {"Device Type": 1, "Device Id": device, "Bytes": size * mib}  # as torch 1.8 does
        clock.events.append(
            {"ph": "i", "name": "[memory]", "pid": 1, "tid": 1, "s": "t", "args": args}
            | {"ts": round(clock.base + clock.now, 3)}
        )
        clock.wait(1)

    with clock.tag("forward"):
        clock.wait(1)
        for _ in range(10):
            change(0, 2)
            change(1, 1)
        change(0, -4)
    with clock.tag("release"):
        clock.wait(1)
        change(0, -40)
    analysis = analyze(write(tmp_path / "t.json", clock.events, config=None))
    rows = {(row.tag, row.device): (row.peak_mib, row.kept_mib) for row in analysis.memory}
    assert rows[("forward", 0)] == (24 + 20, 16)  # 24 MiB were there before
    assert rows[("forward", 1)] == (10, 10)
    assert rows[("release", 0)] == (40, -40)
    assert "22 records of memory have no total" in " ".join(analysis.trace.left_out)


def recorded(clock, process, total, change):
    """Record a change of the allocated MiB of GPU 0."""
    mib = 2**20
    args = {"Total Allocated": total * mib, "Bytes": change * mib, "Device Type": 1}
    clock.events.append(
        {"ph": "i", "cat": "cpu_instant_event", "name": "[memory]", "pid": process, "tid": 1}
        | {"ts": round(clock.base + clock.now, 3), "args": args | {"Device Id": 0}}
    )
    clock.wait(1)


def test_memory_allocated_before_the_trace_is_kept_by_no_tag_and_counts_in_peaks(tmp_path):
    clock, weights = CpuTrace(), 10_000
    with clock.tag("forward"):
        clock.wait(1)
        recorded(clock, 1, weights + 3, 3)
    with clock.tag("release"):
        clock.wait(1)
        recorded(clock, 1, weights + 1, -2)
        recorded(clock, 1, weights, -1)
    analysis = analyze(write(tmp_path / "weights.json", clock.events, config=None))
    rows = {row.tag: (row.peak_mib, row.kept_mib) for row in analysis.memory}
    assert rows == {"forward": (weights + 3, 3), "release": (weights + 3, -3)}
    untagged = [event for event in clock.events if event["name"] == "[memory]"]
    first = clock.events[0] | {"name": "aten::mm", "cat": "cpu_op"}
    analysis = analyze(write(tmp_path / "operators.json", [first, *untagged], config=None))
    rows = {row.tag: (row.peak_mib, row.kept_mib) for row in analysis.memory}
    assert rows == {"(the whole run)": (weights + 3, 0), "aten::mm": (weights + 3, 3)}


@pytest.mark.parametrize("category", ["user_annotation", "cpu_op"])
def test_memory_of_each_process_is_apart_where_ranks_are_merged(tmp_path, category):
    clock, held_by = CpuTrace(), {"rank 0": 1_000, "rank 1": 9_000}
    kept: dict[str, int] = {}
    peak: dict[str, int] = {}
    for i in range(6):
        for process, grows in (("rank 0", 1), ("rank 1", 4)):
            name, start, index = f"work of {process[-1:]}", clock.now, len(clock.events)
            name = name.replace("0", "a").replace("1", "b")
            clock.wait(1)
            for change in (grows + i, -i):
                held_by[process] += change
                peak[name] = max(peak.get(name, 0), held_by[process])
                recorded(clock, process, held_by[process], change)
            kept[name] = grows
            clock.event(category, name, start, clock.now - start, pid=process)
            clock.events.insert(index, clock.events.pop())
    analysis = analyze(write(tmp_path / "ranks.json", clock.events, config=None))
    write_perfetto(tmp_path / "ranks.pftrace", analysis.trace)
    assert analyze(tmp_path / "ranks.pftrace").memory == analysis.memory
    rows = {row.tag: row for row in analysis.memory}
    for name in kept:
        assert (rows[name].peak_mib, rows[name].kept_mib) == (peak[name], kept[name])
    if category == "cpu_op":
        assert rows["(the whole run)"].kept_mib == 6 * (1 + 4)
        assert rows["(the whole run)"].peak_mib == max(peak.values())
