"""Any layout, any damage: what can be read is read, what cannot is named."""

import gzip
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from glassworld.errors import TraceError
from glassworld.trace import analyze
from glassworld.trace.reading.reader import read_trace
from tests.support.traces import (
    CONFIG,
    JSON_VALUES,
    CpuTrace,
    GpuTrace,
    analysis_json,
    engine_run,
    write,
)


@pytest.mark.parametrize("name", ["a.json", "a.json.gz"])
@pytest.mark.parametrize("indent", [None, 0, 4])
def test_read_trace_any_layout_in_small_pieces_reads_the_same(tmp_path, small_pieces, name, indent):
    events = engine_run(blocks=2)
    trace = read_trace(write(tmp_path / name, events, indent=indent))
    assert trace.events == len(events)
    assert trace.losses == []
    metadata = trace.metadata["glassworld"]
    assert isinstance(metadata, dict)
    assert metadata["config"] == CONFIG
    tags = [event for event in events if event["cat"] == "user_annotation"]
    assert [trace.names[i] for i in trace.tags["name"]] == [event["name"] for event in tags]
    assert trace.tags["start"].tolist() == [round(event["ts"] * 1000) for event in tags]


def test_read_trace_bare_array_with_odd_ids_is_read(tmp_path):
    events = engine_run(blocks=1)
    for event in events:
        event["pid"], event["tid"] = "process", None
        if event["cat"] == "cpu_op":
            del event["args"]
    path = tmp_path / "bare.json"
    path.write_text(json.dumps(events), encoding="utf-8")
    assert read_trace(path).events == len(events)


@pytest.mark.parametrize("base", ["4623103944612.872", "1764000000123456.789"])
def test_read_trace_keeps_nanoseconds(tmp_path, base):
    event = '{"ph":"X","cat":"user_annotation","name":"t","pid":1,"tid":1,"ts":%s,"dur":1.001}'
    path = tmp_path / "t.json"
    path.write_text('{"traceEvents":[' + event % base + "]}", encoding="utf-8")
    tags = read_trace(path).tags
    assert tags["start"][0] == int(base.replace(".", ""))
    assert tags["dur"][0] == 1001


def test_read_trace_control_characters_and_nan_are_repaired(tmp_path):
    text = json.dumps({"traceEvents": engine_run(blocks=1)})
    text = text.replace('"aten::linear"', '"aten::\x01li\tnear"', 1)
    text = text.replace('"args": {}', '"args": {"occupancy": nan, "bandwidth": -inf}', 3)
    path = tmp_path / "odd.json"
    path.write_text(text, encoding="utf-8")
    trace = read_trace(path)
    assert trace.losses == []
    assert trace.events == len(engine_run(blocks=1))


@pytest.mark.parametrize("key", ["cat", "name", "pid", "tid", "args", "dur"])
@pytest.mark.parametrize("value", JSON_VALUES, ids=repr)
def test_read_trace_event_with_odd_value_is_read_or_reported(tmp_path, key, value):
    events = engine_run(blocks=1)
    events[len(events) // 2][key] = value
    trace = read_trace(write(tmp_path / "odd.json", events))
    assert trace.events >= len(events) - 1
    impossible = key == "dur" and value in (2**70, "NaN")
    assert bool(trace.losses) == (trace.events < len(events) or impossible)
    analysis = analyze(tmp_path / "odd.json")
    assert analysis_json(analysis)["stages"]


@pytest.mark.parametrize("ts", ["1e300", "-1e300", "null", '"x"', "9e15"])
def test_read_trace_impossible_time_does_not_stretch_the_trace(tmp_path, ts):
    events = engine_run(blocks=1)
    text = json.dumps({"traceEvents": events})
    path = tmp_path / "t.json"
    path.write_text(text.replace(f'"ts": {events[9]["ts"]}', f'"ts": {ts}', 1), encoding="utf-8")
    trace = read_trace(path)
    assert trace.losses
    assert 0 < trace.end - trace.start < 1e9
    assert len(trace.tags) >= sum(e["cat"] == "user_annotation" for e in events) - 1


def test_read_trace_broken_event_loses_only_itself(tmp_path, small_pieces):
    events = engine_run(blocks=2)
    text = json.dumps({"traceEvents": events})
    at = text.index('"cat"', len(text) // 2)
    path = tmp_path / "broken.json"
    path.write_text(text[:at] + '"cat" "oops' + text[at + 6 :], encoding="utf-8")
    trace = read_trace(path)
    assert 0 < len(events) - trace.events <= 2
    assert any("could not be read" in loss for loss in trace.losses)


@given(share=st.floats(0.02, 0.999))
def test_read_trace_truncated_file_keeps_its_events(tmp_path_factory, share):
    folder = tmp_path_factory.mktemp("cut")
    events = engine_run(blocks=1)
    whole = write(folder / "whole.json", events, config=None).read_bytes()
    cut = whole[: int(len(whole) * share)]
    path = folder / "cut.json"
    path.write_bytes(cut)
    trace = read_trace(path)
    assert trace.events >= len(events) * share - 2
    assert trace.losses


def test_read_trace_truncated_gzip_keeps_its_events(tmp_path):
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
def test_analyze_file_that_is_no_trace_raises_one_clear_line(tmp_path, content, words):
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(TraceError, match=words) as caught:
        analyze(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(TraceError, match="cannot be read"):
        analyze(tmp_path / "absent.json")


def test_repeated_trace_reads_as_one_long_run(tmp_path):
    from glassworld.bench.trace_files import repeat_trace

    once = write(tmp_path / "once.json", engine_run(blocks=2))
    count = repeat_trace(once, tmp_path / "long.json", 4 * once.stat().st_size)
    short, long = analyze(once), analyze(tmp_path / "long.json")
    assert count >= 4
    assert long.trace.events == count * short.trace.events
    assert [tag.path for tag in long.tags] == [tag.path for tag in short.tags]
    assert long.tags[0].cpu_ms == pytest.approx(count * short.tags[0].cpu_ms)


def test_read_trace_not_available_and_commas_behind_the_last_event_are_no_damage(tmp_path):
    events = engine_run(blocks=1)
    text = json.dumps({"traceEvents": events})
    text = text.replace('"args": {}', '"args": {"cbid": N/A, "shapes": [N/A, 1],}')
    text = text[: text.rindex("]")] + ',\n], "traceName": "a,]"}'
    path = tmp_path / "odd.json"
    path.write_text(text, encoding="utf-8")
    trace = read_trace(path)
    assert trace.losses == []
    assert trace.events == len(events)
    assert trace.metadata["traceName"] == "a,]"


@pytest.mark.parametrize(
    "raw", [r"torch\utils\_contextlib.py", r"C:\new\util", r"D:\\ok\x", r"a\ud800", r"\udc00b"]
)
def test_read_trace_bad_escape_is_text(tmp_path, small_pieces, raw):
    events = engine_run(blocks=2)
    text = json.dumps({"traceEvents": events}).replace("aten::linear", raw)
    path = tmp_path / "odd.json"
    path.write_text(text, encoding="utf-8")
    trace = read_trace(path)
    assert trace.losses == []
    assert trace.events == len(events)
    assert raw.replace("\\\\", "\\") in trace.names


NAMES = ['say "hi"', '"', '""', "{'a': \"b\"}", '{"a": 1, "b": "c"}', "plain"]


@pytest.mark.parametrize("tags_only", [True, False])
def test_read_trace_quotes_in_names_of_torch_are_text(tmp_path, small_pieces, tags_only):
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        for name in NAMES:
            with torch.profiler.record_function(name):
                torch.ones(3)
    path = tmp_path / "t.json"
    profiler.export_chrome_trace(str(path))
    trace = read_trace(path, tags_only=tags_only)
    assert trace.losses == []
    assert [trace.names[name] for name in trace.tags["name"]] == NAMES


def test_read_trace_valid_escapes_stay_escapes(tmp_path):
    event = {"ph": "X", "cat": "cpu_op", "pid": 1, "tid": 1, "ts": 1, "dur": 1}
    names = ["a\\u", "\u00e9\t", 'say "x"\\', "\U0001f600"]
    text = json.dumps([event | {"name": name} for name in names] + [event | {"name": "N"}])
    path = tmp_path / "odd.json"
    path.write_text(text.replace('"N"', r'"\q"'), encoding="utf-8")
    assert read_trace(path).names == [*names, r"\q"]


def test_read_trace_broken_last_event_does_not_mean_a_missing_end(tmp_path):
    events = engine_run(blocks=1)
    text = json.dumps({"traceEvents": events})
    at = text.rindex('"cat"')
    path = tmp_path / "odd.json"
    path.write_text(text[:at] + '"cat" "oops' + text[at + 6 :], encoding="utf-8")
    trace = read_trace(path)
    assert trace.events == len(events) - 1
    assert trace.losses == ["1 event could not be read"]


def test_read_trace_times_as_strings_are_read(tmp_path):
    events = engine_run(blocks=1)
    texts = [event | {"ts": str(event["ts"]), "dur": str(event["dur"])} for event in events]
    trace, other = (
        read_trace(write(tmp_path / name, rows)) for name, rows in (("a", events), ("b", texts))
    )
    assert trace.tags["start"].tolist() == other.tags["start"].tolist()
    assert other.losses == []


@pytest.mark.parametrize("base", [5e12, 1e6, 1_000.0])
def test_read_trace_events_at_zero_far_from_all_others_are_left_out(tmp_path, base):
    events = []
    for i in range(20):
        at = {"ph": "X", "pid": 1, "tid": 1, "name": f"{i}", "dur": 0.0 if i % 4 == 0 else 50.0}
        start = 0.0 if i % 4 == 0 else base + 100 * i
        events.append(at | {"cat": "user_annotation" if i % 8 else "kernel", "ts": start})
    trace = read_trace(write(tmp_path / "t.json", events, config=None))
    far = base > 1e5
    assert trace.end - trace.start == (1_850_000 if far else 2_950_000)
    assert len(trace.tags) + len(trace.device_ops) == (15 if far else 20)
    assert [note for note in trace.left_out if "timestamp 0" in note and "5" in note] or not far


def test_read_trace_negative_durations_are_left_out_and_counted(tmp_path):
    events = engine_run(blocks=1)
    operators = [event for event in events if event["cat"] == "cpu_op"]
    for event in operators[:4]:
        event["dur"] = -1_669_329_643_132_548.0
    trace = read_trace(write(tmp_path / "t.json", events))
    assert len(trace.ops) == len(operators) - 4
    assert [note for note in trace.left_out if "negative" in note and "4" in note]


@pytest.mark.parametrize("end", ["", ",", ",\n", "\n"])
@pytest.mark.parametrize("array", [True, False])
def test_read_trace_missing_end_is_damage_unless_the_events_are_an_array(tmp_path, array, end):
    events = engine_run(blocks=1)
    text = json.dumps(events)[:-1] if array else json.dumps({"traceEvents": events})[:-2]
    path = tmp_path / "open.json"
    path.write_text(text + end, encoding="utf-8")
    trace = read_trace(path)
    assert trace.events == len(events)
    missing = ["the file ends before its event list is closed"]
    assert trace.losses == ([] if array else missing)


def test_read_trace_ids_of_64_bits_find_their_launches(tmp_path):
    gpu = GpuTrace()
    for _ in range(5):
        gpu.launch("gemm", 50)
    for event in gpu.events:
        event["args"]["correlation"] += 2**63
    assert analyze(write(tmp_path / "t.json", gpu.events, config=None)).coverage.launched == 5


def test_read_trace_deep_nesting_is_an_event_that_cannot_be_read(tmp_path):
    events = engine_run(blocks=1)
    text = json.dumps({"traceEvents": events}).replace("{}", "[" * 5000 + "]" * 5000, 1)
    path = tmp_path / "deep.json"
    path.write_text(text, encoding="utf-8")
    assert read_trace(path).losses == ["1 event could not be read"]
    path.write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(TraceError, match="no events"):
        read_trace(path)


def test_read_trace_missing_durations_are_counted(tmp_path):
    events = engine_run(blocks=1)
    del events[3]["dur"]
    trace = read_trace(write(tmp_path / "t.json", events))
    assert trace.left_out == ["1 events have no duration and count as 0 ms"]


def test_read_trace_keeps_the_inputs_of_operators_whose_work_can_be_counted(tmp_path, small_pieces):
    clock = CpuTrace()
    recorded = {
        "Input Dims": [[8, 16], [16, 4]],
        "Input type": ["float", "float"],
        "Concrete Inputs": ["", ""],
    }
    for _ in range(3):
        clock.op("aten::mm", 5, **recorded)
    clock.op("aten::mm", 5)
    clock.op("aten::add", 5, **recorded)
    clock.op("aten::bmm", 5, **recorded | {"Input Strides": "odd"})
    trace = read_trace(write(tmp_path / "shapes.json", clock.events))
    rows = trace.shaped_ops.to_array()
    assert [trace.names[name] for name in rows["name"]] == ["aten::mm"] * 3 + ["aten::bmm"]
    assert rows["inputs"].tolist() == [0, 0, 0, 1]  # equal inputs are kept once
    assert json.loads(trace.inputs[0]) == [
        [[8, 16], [16, 4]],
        ["float", "float"],
        None,
        ["", ""],
    ]
    operators = trace.ops.to_array()
    assert len(operators) == 6
    assert rows["start"].tolist() == operators["start"][[0, 1, 2, 5]].tolist()
    assert len(read_trace(trace.path, tags_only=True).shaped_ops) == 0


@pytest.mark.parametrize(("version", "notes"), [(1, 0), (2, 1), ("x", 0)])
def test_read_trace_of_a_later_schema_says_so(tmp_path, version, notes):
    clock = CpuTrace()
    clock.op("aten::mm", 5)
    trace = read_trace(write(tmp_path / "t.json", clock.events, schemaVersion=version))
    assert len(trace.ops) == 1
    assert sum("schema 2, which is later" in loss for loss in trace.losses) == notes
