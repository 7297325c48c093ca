"""Any layout, any damage: what can be read is read, what cannot is named."""

import gzip
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glassworld.errors import TraceError
from glassworld.trace import analyze
from glassworld.trace.analyzers.blocks import real_time_pace
from glassworld.trace.reading.columns import RANGE, EventTable
from glassworld.trace.reading.reader import read_trace
from glassworld.trace.timeline.intervals import nest_intervals
from tests.support.traces import CONFIG, Clock, Gpu, analysis_json, engine_run, write


@pytest.mark.parametrize("name", ["a.json", "a.json.gz"])
@pytest.mark.parametrize("indent", [None, 0, 4])
def test_every_layout_in_pieces_reads_the_same(tmp_path, small_pieces, name, indent):
    events = engine_run(blocks=2)
    trace = read_trace(write(tmp_path / name, events, indent=indent))
    assert trace.events == len(events)
    assert trace.losses == []
    assert trace.metadata["glassworld"]["config"] == CONFIG
    tags = [event for event in events if event["cat"] == "user_annotation"]
    assert [trace.names[i] for i in trace.tags["name"]] == [event["name"] for event in tags]
    assert trace.tags["start"].tolist() == [round(event["ts"] * 1000) for event in tags]


def test_a_bare_array_and_odd_ids_are_read(tmp_path):
    events = engine_run(blocks=1)
    for event in events:
        event["pid"], event["tid"] = "process", None
        if event["cat"] == "cpu_op":
            del event["args"]
    path = tmp_path / "bare.json"
    path.write_text(json.dumps(events))
    assert read_trace(path).events == len(events)


@pytest.mark.parametrize("base", ["4623103944612.872", "1764000000123456.789"])
def test_nanoseconds_survive(tmp_path, base):
    event = '{"ph":"X","cat":"user_annotation","name":"t","pid":1,"tid":1,"ts":%s,"dur":1.001}'
    path = tmp_path / "t.json"
    path.write_text('{"traceEvents":[' + event % base + "]}")
    tags = read_trace(path).tags
    assert tags["start"][0] == int(base.replace(".", ""))
    assert tags["dur"][0] == 1001


def test_control_characters_and_nan_are_mended(tmp_path):
    text = json.dumps({"traceEvents": engine_run(blocks=1)})
    text = text.replace('"aten::linear"', '"aten::\x01li\tnear"', 1)
    text = text.replace('"args": {}', '"args": {"occupancy": nan, "bandwidth": -inf}', 3)
    path = tmp_path / "odd.json"
    path.write_text(text)
    trace = read_trace(path)
    assert trace.losses == []
    assert trace.events == len(engine_run(blocks=1))


ODD = [None, "x", "12", "", -1, 1.5, True, [], [1], {}, {"a": 1}, 2**70, "NaN"]


@pytest.mark.parametrize("key", ["cat", "name", "pid", "tid", "args", "dur"])
@pytest.mark.parametrize("value", ODD, ids=repr)
def test_an_event_of_any_values_is_read_or_named_as_lost(tmp_path, key, value):
    events = engine_run(blocks=1)
    events[len(events) // 2][key] = value
    trace = read_trace(write(tmp_path / "odd.json", events))
    assert trace.events >= len(events) - 1
    impossible = key == "dur" and value in (2**70, "NaN")
    assert bool(trace.losses) == (trace.events < len(events) or impossible)
    analysis = analyze(tmp_path / "odd.json")
    assert analysis_json(analysis)["stages"]


@pytest.mark.parametrize("ts", ["1e300", "-1e300", "null", '"x"', "9e15"])
def test_an_impossible_time_does_not_stretch_the_trace(tmp_path, ts):
    events = engine_run(blocks=1)
    text = json.dumps({"traceEvents": events})
    path = tmp_path / "t.json"
    path.write_text(text.replace(f'"ts": {events[9]["ts"]}', f'"ts": {ts}', 1))
    trace = read_trace(path)
    assert trace.losses
    assert 0 < trace.end - trace.start < 1e9
    assert len(trace.tags) >= sum(e["cat"] == "user_annotation" for e in events) - 1


@pytest.mark.parametrize("place", ["correlation", "stream", "device", "bytes"])
@pytest.mark.parametrize("value", ODD, ids=repr)
def test_a_gpu_operation_of_any_arguments_counts(tmp_path, place, value):
    gpu = Gpu()
    with gpu.tag("step"):
        for _ in range(3):
            gpu.launch("gemm", 10)
    gpu.events[-1]["args"][place] = value
    analysis = analyze(write(tmp_path / "odd.json", gpu.events, config=None))
    assert analysis.coverage.gpu_ops == 3
    assert analysis.coverage.launched >= 2
    assert analysis_json(analysis)["tags"][0]["gpu_busy_ms"] >= 0.02


def test_tags_far_apart_in_time_on_many_threads_are_told_apart(tmp_path):
    """Nanoseconds since 1970 times the number of threads is more than an integer holds."""
    events = []
    for tid in range(40):
        for base in (1.0, 1_764_000_000_000_000.0):
            at = {"ph": "X", "pid": 1, "tid": f"thread {tid}", "ts": base + tid}
            events.append(at | {"cat": "user_annotation", "name": f"tag {tid}", "dur": 8})
            call = {"correlation": len(events)}
            events.append(at | {"cat": "cuda_runtime", "name": "launch", "dur": 1, "args": call})
            events.append(at | {"cat": "kernel", "name": "k", "dur": 5, "args": call, "pid": 9})
    tags = analyze(write(tmp_path / "far.json", events, config=None)).tags
    assert sorted((tag.instances, tag.gpu_kernels) for tag in tags) == [(2, 2)] * 40


@pytest.mark.parametrize("broken", ODD, ids=repr)
@pytest.mark.parametrize("key", CONFIG)
def test_a_configuration_of_any_values_counts_work_or_does_not(tmp_path, key, broken):
    path = write(tmp_path / "run.json", engine_run(blocks=2), config=CONFIG | {key: broken})
    document = analysis_json(analyze(path))
    assert len(document["expected"]) == 8
    assert document["blocks"]


@pytest.mark.parametrize(
    "broken",
    [
        {"frame_rate": 10**400},
        {"frame_rate": float("nan")},
        {"frame_rate": -12},
        {"frame_rate": 12, "frames_per_block": 0},
        {"vae": CONFIG["vae"] | {"temporal": [10**12, True, True]}},
    ],
    ids=repr,
)
def test_absurd_numbers_in_a_configuration_stop_nothing(tmp_path, broken):
    analysis = analyze(write(tmp_path / "run.json", engine_run(blocks=2), config=CONFIG | broken))
    assert len(analysis_json(analysis)["expected"]) == 8
    assert real_time_pace(analysis) is None


def test_a_broken_event_loses_only_itself(tmp_path, small_pieces):
    events = engine_run(blocks=2)
    text = json.dumps({"traceEvents": events})
    at = text.index('"cat"', len(text) // 2)
    path = tmp_path / "broken.json"
    path.write_text(text[:at] + '"cat" "oops' + text[at + 6 :])
    trace = read_trace(path)
    assert 0 < len(events) - trace.events <= 2
    assert any("could not be read" in loss for loss in trace.losses)


@given(share=st.floats(0.02, 0.999))
def test_a_file_cut_short_gives_what_it_holds(tmp_path_factory, share):
    folder = tmp_path_factory.mktemp("cut")
    events = engine_run(blocks=1)
    whole = write(folder / "whole.json", events, config=None).read_bytes()
    cut = whole[: int(len(whole) * share)]
    path = folder / "cut.json"
    path.write_bytes(cut)
    trace = read_trace(path)
    assert trace.events >= len(events) * share - 2
    assert trace.losses


def test_half_a_gz_file_gives_its_half(tmp_path):
    path = write(tmp_path / "run.json.gz", engine_run(blocks=8))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    trace = read_trace(path)
    assert trace.events > 100
    assert any("cut short" in loss for loss in trace.losses)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (gzip.compress(b"x" * 100, mtime=0)[:6], "not a trace"),
        (b"hello", "traceEvents"),
        (b'{"traceEvents": []}', "no events"),
        (b'{"a": 1}', "traceEvents"),
    ],
)
def test_what_is_no_trace_is_one_clear_line(tmp_path, content, words):
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(TraceError, match=words) as caught:
        analyze(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(TraceError, match="cannot be read"):
        analyze(tmp_path / "absent.json")


def test_a_table_on_disk_gives_its_rows_back():
    table = EventTable(RANGE, limit=100)
    rows = np.zeros(730, RANGE)
    rows["start"] = np.arange(730)
    for at in range(0, 730, 73):
        table.append(rows[at : at + 73])
    for _ in range(2):
        assert np.concatenate(list(table.slices()))["start"].tolist() == list(range(730))


ranges = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 60), st.integers(0, 30)), max_size=25)


@given(ranges)
def test_nesting_clips_children_to_their_parents(values):
    rows = np.array([(0, thread, start, dur) for thread, start, dur in values], RANGE)
    forest = nest_intervals(rows)
    for i, parent in enumerate(forest.parent):
        assert rows["start"][i] <= forest.end[i] <= rows["start"][i] + rows["dur"][i]
        if parent >= 0:
            assert rows["thread"][i] == rows["thread"][parent]
            assert rows["start"][parent] <= rows["start"][i] <= forest.end[parent]
            assert forest.end[i] <= forest.end[parent]
            assert forest.depth[i] == forest.depth[parent] + 1


@given(ranges)
def test_a_tag_around_a_crossing_changes_nothing_inside(values):
    """Ranges that cross are walked one by one, with all in the same busy stretch; others not."""
    inner = [(0, thread, 1 + start, dur) for thread, start, dur in values]
    around = [(0, thread, 0, 100) for thread in range(3)]
    alone, within = (
        nest_intervals(np.array(inner, RANGE)),
        nest_intervals(np.array(around + inner, RANGE)),
    )
    assert within.end[3:].tolist() == alone.end.tolist()
    assert within.depth[3:].tolist() == (alone.depth + 1).tolist()
    roots = np.array([thread for _, thread, _, _ in inner], int)
    expected = np.where(alone.parent < 0, roots, alone.parent + 3)
    assert within.parent[3:].tolist() == expected.tolist()
    assert within.clipped == alone.clipped


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 200), st.integers(1, 40)), max_size=30))
def test_busy_time_is_the_union_over_streams_that_each_run_one_by_one(tmp_path_factory, ops):
    clock = Clock(base=1000.0)
    with clock.tag("outer"):
        for i, (stream, start, dur) in enumerate(ops):
            clock.event("cuda_runtime", "cudaLaunchKernel", i * 2, 1, correlation=i + 1)
            args = {"correlation": i + 1, "stream": stream}
            clock.event("kernel", "k", 500 + start, dur, pid=0, tid=stream, **args)
        clock.wait(300)
    analysis = analyze(write(tmp_path_factory.mktemp("gpu") / "t.json", clock.events))
    covered = {t for _, start, dur in ops for t in range(start, start + dur)}
    lanes = {(stream, t) for stream, start, dur in ops for t in range(start, start + dur)}
    queued = sum(dur for _, _, dur in ops) - len(lanes)  # overlaps within a stream
    assert analysis.device.busy[0] == 1000 * (len(covered) + queued)
    assert analysis.ops.exclusive.sum() == 1000 * (len(covered) + queued)
    assert analysis.device.kernels[0] == len(ops)


def test_the_tags_alone_are_those_of_the_whole(tmp_path, small_pieces):
    path = write(tmp_path / "run.json", engine_run(blocks=3), indent=2)
    whole, tags = analyze(path), analyze(path, tags_only=True)
    assert [tag.path for tag in tags.tags] == [tag.path for tag in whole.tags]
    assert [tag.cpu_ms for tag in tags.tags] == [tag.cpu_ms for tag in whole.tags]
    assert tags.trace.losses == []


def test_a_repeated_trace_is_one_long_run(tmp_path):
    from glassworld.bench.trace_files import repeat_trace

    once = write(tmp_path / "once.json", engine_run(blocks=2))
    count = repeat_trace(once, tmp_path / "long.json", 4 * once.stat().st_size)
    short, long = analyze(once), analyze(tmp_path / "long.json")
    assert count >= 4
    assert long.trace.events == count * short.trace.events
    assert [tag.path for tag in long.tags] == [tag.path for tag in short.tags]
    assert long.tags[0].cpu_ms == pytest.approx(count * short.tags[0].cpu_ms)
