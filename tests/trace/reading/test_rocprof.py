"""rocprofv3's JSON gives the figures of the torch trace of the same run."""

import gzip
import json

import pytest

from glassworld.errors import TraceError
from glassworld.trace import analyze
from glassworld.trace.reading.reader import read_trace
from tests.support.other_formats import ROCM_RUN, figures, rocprof_document, write_rocprof
from tests.support.traces import write


def test_rocprof_figures_equal_those_of_the_torch_trace(tmp_path):
    torch_run = analyze(write(tmp_path / "run.json", ROCM_RUN, config=None))
    analysis = analyze(write_rocprof(tmp_path / "results.json"))
    assert figures(analysis) == figures(torch_run)
    assert analysis.coverage.attributed == 12
    assert analysis.trace.losses == []
    assert analysis.trace.metadata["deviceProperties"] == [
        {"id": 0, "name": "gfx942", "numSms": 304}
    ]


def test_rocprof_two_processes_keep_their_ids_apart(tmp_path):
    document = rocprof_document()
    (process,) = document["rocprofiler-sdk-tool"]
    other = json.loads(json.dumps(process))
    other["buffer_records"]["marker_api"] = []
    other["metadata"]["pid"] += 1
    path = tmp_path / "t.json"
    path.write_text(json.dumps({"rocprofiler-sdk-tool": [process, other]}), encoding="utf-8")
    analysis = analyze(path)
    assert analysis.coverage.launched == 24
    assert analysis.coverage.attributed == 12
    assert analysis.gpu is not None
    assert analysis.gpu.overlap_ns == 0  # their streams have the same numbers


def test_rocprof_work_that_names_a_call_of_hsa_is_launched_by_it(tmp_path):
    document = rocprof_document()
    (process,) = document["rocprofiler-sdk-tool"]
    records = process["buffer_records"]
    names = process["strings"]["buffer_records"]
    names.append({"kind": "HSA_CORE_API", "operations": ["hsa_signal_store_screlease"]})
    launches = [r for r in records["hip_api"] if r["operation"] == 0]
    records["hsa_api"] = [
        call
        | {"kind": 4, "correlation_id": {"internal": call["correlation_id"]["internal"] + more}}
        for more in (10_000, 20_000)
        for call in launches
    ]
    for work in records["kernel_dispatch"] + records["memory_copy"]:
        work["correlation_id"]["internal"] += 10_000
    path = tmp_path / "t.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    analysis = analyze(path)
    assert analysis.coverage.attributed == 12
    assert len(analysis.trace.launches) == len(records["hip_api"]) + len(launches)


def test_rocprof_marks_are_no_tags(tmp_path):
    document = rocprof_document()
    markers = document["rocprofiler-sdk-tool"][0]["buffer_records"]["marker_api"]
    markers[0]["end_timestamp"] = markers[0]["start_timestamp"]
    path = tmp_path / "t.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    assert len(read_trace(path).tags) == 8


def test_rocprof_calls_that_pause_the_profiler_are_no_tags(tmp_path):
    document = rocprof_document()
    (process,) = document["rocprofiler-sdk-tool"]
    kinds = process["strings"]["buffer_records"]
    kinds.append({"kind": "MARKER_CONTROL_API", "operations": ["roctxProfilerResume"]})
    markers = process["buffer_records"]["marker_api"]
    markers.append(markers[0] | {"kind": 4, "correlation_id": {"internal": 9_999, "external": 0}})
    path = tmp_path / "t.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    assert len(read_trace(path).tags) == 9


def test_rocprof_compressed_is_read(tmp_path):
    path = tmp_path / "t.json.gz"
    path.write_bytes(gzip.compress(json.dumps(rocprof_document()).encode()))
    assert len(read_trace(path).device_ops) == 12


def test_rocprof_without_names_is_read(tmp_path):
    document = rocprof_document()
    process = document["rocprofiler-sdk-tool"][0]
    del process["strings"], process["kernel_symbols"], process["agents"]
    path = tmp_path / "t.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    names = read_trace(path).names
    assert {"kernel 1", "operation 0.1", "Memcpy operation 1.1"} <= set(names)


def test_rocprof_of_a_later_version_names_the_records_that_are_not_read(tmp_path):
    document = rocprof_document()
    records = document["rocprofiler-sdk-tool"][0]["buffer_records"]
    records |= {"kernel_dispatch_v2": records.pop("kernel_dispatch"), "scratch_memory": []}
    path = tmp_path / "t.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    trace = read_trace(path)
    assert trace.losses == ["these records are not read: kernel_dispatch_v2"]
    assert len(trace.device_ops) == 3  # copies


TEXT = json.dumps(rocprof_document())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (TEXT[: len(TEXT) // 2], "cut short or damaged"),
        (TEXT.replace("gemm", "g\xc1mm"), "cut short or damaged"),
        (TEXT[:40], "cut short or damaged"),
        (TEXT.replace("start_timestamp", "begin_timestamp"), "version that is not known"),
        (TEXT.replace('"buffer_records": {', '"records": {'), "version that is not known"),
        ('{"rocprofiler-sdk-tool": []}', "no events"),
        ('{"rocprofiler-sdk-tool": 5}', "version that is not known"),
        ('{"other": 5}', "not a torch trace"),
    ],
)
def test_rocprof_that_cannot_be_read_is_one_clear_line(tmp_path, text, words):
    path = tmp_path / "t.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(TraceError, match=words) as refused:
        read_trace(path)
    assert str(refused.value).startswith(str(path))
    assert "\n" not in str(refused.value)
