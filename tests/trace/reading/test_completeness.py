"""Every complete event of a trace is in a table, repeats another, or is counted in a note."""

import json
import re

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glassworld.trace.reading.reader import read_trace

REPEATING = ("gpu_user_annotation", "cuda_sync", "Trace")
CATEGORIES = [
    *("cpu_op", "Operator", "user_annotation", "python_function", "cuda_runtime", "kernel"),
    *("gpu_memcpy", "overhead", "hpu_op", "xpu_kernel", "mystery", "", None, *REPEATING),
]
TIMES = [0, 0.0, "12.5", 1e6, 1e6 + 0.125, "N/A", None, -5.0, 1e30, "x", 5e9]
EVENT = st.fixed_dictionaries(
    {
        "ph": st.sampled_from(["X"] * 12 + ["B", "i", "s", "f", "M", "C"]),
        "cat": st.sampled_from(CATEGORIES),
        "name": st.sampled_from(["aten::mm", "ProfilerStep#3", "\\ud800", "p\\ath", None, 3]),
        "pid": st.sampled_from([1, "CUDA functions", "/host:CPU", "x"]),
        "tid": st.sampled_from([1, 7, "stream 7"]),
        "ts": st.one_of(st.sampled_from(TIMES), st.floats(1e6, 1e6 + 500)),
        "dur": st.one_of(st.sampled_from(TIMES), st.floats(0, 50)),
        "args": st.sampled_from([{}, {"stream": 1, "device": "0"}, {"correlation": 2**64}, None]),
    }
)


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(st.lists(EVENT, min_size=1, max_size=25))
def test_every_complete_event_is_read_or_counted(tmp_path, events):
    sound = {"ph": "X", "cat": "cpu_op", "name": "a", "pid": 1, "tid": 1, "ts": 1e6, "dur": 3}
    events = [sound, *events]
    text = json.dumps({"traceEvents": events}).replace("\\\\", "\\").replace('"N/A"', "N/A")
    path = tmp_path / "t.json"
    path.write_text(text, encoding="utf-8")
    trace = read_trace(path)
    complete = [e for e in events if e["ph"] == "X" and e["cat"] not in REPEATING]
    in_tables = sum(len(table) for table in trace.tables if table is not trace.memory)
    notes = [note for note in (*trace.losses, *trace.left_out) if "begin/end" not in note]
    numbers = [re.match(r"\d+", note) for note in notes if "no duration" not in note]
    counted = sum(int(number[0]) for number in numbers if number)
    overhead = sum(event["cat"] == "overhead" for event in complete)
    known = in_tables + counted
    assert len(complete) - overhead <= known <= len(events), (notes, in_tables)
