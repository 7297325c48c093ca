"""Memory snapshots are read without running code; what is no snapshot is refused."""

import os
import pickle

import pytest

from glassworld.errors import TraceError
from glassworld.trace import analyze
from glassworld.trace.reading.reader import read_trace
from tests.support.traces import invoke

MIB = 2**20


def snapshot(annotated=True):
    def change(action, mib, at):
        return {"action": action, "addr": 1, "size": mib * MIB, "stream": 0, "time_us": at} | {
            "frames": [{"filename": "model.py", "line": 3, "name": "forward"}]
        }

    history = [
        change("alloc", 10, 1_000_100),
        change("segment_alloc", 64, 1_000_150),
        change("alloc", 20, 1_000_200),
        change("free_requested", 10, 1_000_300),
        change("free_completed", 10, 1_000_310),
        change("alloc", 1, 1_000_500),
    ]
    stages = (("START", 1_000_150), ("END", 1_000_400))
    annotations = [
        {"name": "forward", "device": 0, "stage": stage, "time_us": at} for stage, at in stages
    ]
    return {
        "segments": [{"device": 0, "allocated_size": 26 * MIB, "total_size": 64 * MIB}],
        "device_traces": [history, []],
        "external_annotations": annotations if annotated else [],
    }


def write_pickle(path, value):
    path.write_bytes(pickle.dumps(value))
    return path


def test_snapshot_totals_are_found_from_its_end(tmp_path):
    memory = read_trace(write_pickle(tmp_path / "snapshot.pickle", snapshot())).memory.to_array()
    assert (memory["total"] // MIB).tolist() == [15, 35, 25, 26]  # 5 MiB are older
    assert memory["device"].tolist() == [0] * 4


def test_snapshot_annotations_are_tags_with_their_peak(tmp_path):
    analysis = analyze(write_pickle(tmp_path / "snapshot.pickle", snapshot()))
    (row,) = analysis.memory
    assert (row.tag, row.device, row.peak_mib, row.kept_mib) == ("forward", 0, 35, 10)
    assert analysis.tags[0].cpu_ms == 0.25


def test_snapshot_without_annotations_shows_the_whole_run(tmp_path):
    path = write_pickle(tmp_path / "snapshot.pickle", snapshot(annotated=False))
    assert analyze(path).memory[0].peak_mib == 35
    for command in ("report", "memory", "top"):
        assert invoke(command, path).exit_code == 0


@pytest.mark.parametrize("annotated", [True, False])
def test_report_of_a_snapshot_speaks_of_memory_alone(tmp_path, annotated):
    path = write_pickle(tmp_path / "snapshot.pickle", snapshot(annotated))
    report = invoke("report", path, "--html", tmp_path / "page.html").output
    assert "only memory was recorded" in report
    assert "Memory" in report
    for absent in ("Not in this trace", "GPU kernels", "Training steps", "no GPU operations in"):
        assert absent not in report


class Intruder:
    """A pickle of this runs a command when it is read."""

    def __reduce__(self):
        return os.mkdir, ("intruded",)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"device_traces": [Intruder()]}, "mkdir, which could run code"),
        ([1, 2], "no memory snapshot"),
        ({"segments": []}, "no memory snapshot"),
        ({"device_traces": []}, "no events"),
    ],
)
def test_snapshot_that_is_none_is_one_clear_line(tmp_path, monkeypatch, value, words):
    monkeypatch.chdir(tmp_path)
    path = write_pickle(tmp_path / "snapshot.pickle", value)
    with pytest.raises(TraceError, match=words) as refused:
        read_trace(path)
    assert str(refused.value).startswith(str(path))
    assert not (tmp_path / "intruded").exists()


def test_snapshot_cut_short_is_one_clear_line(tmp_path):
    content = pickle.dumps(snapshot())
    path = tmp_path / "snapshot.pickle"
    for size in range(2, len(content), 41):
        path.write_bytes(content[:size])
        with pytest.raises(TraceError, match="pickle"):
            read_trace(path)


def test_snapshot_odd_values_are_left_out(tmp_path):
    value = snapshot()
    value["device_traces"][0][0]["size"] = "10"
    value["device_traces"][0].append({"action": [], "size": 1, "time_us": 1})
    value["segments"].append(5)
    value["external_annotations"].append({"name": 3, "time_us": None, "stage": "START"})
    trace = read_trace(write_pickle(tmp_path / "snapshot.pickle", value))
    assert trace.losses == [
        "1 begins or ends of annotations have no partner and were left out",
        "1 allocations have no size or time and were left out",
        "1 records of actions that are not known were left out: []",
    ]


def test_snapshot_annotations_without_partner_are_counted(tmp_path):
    value = snapshot()
    for name, stage in (("open", "START"), ("began before", "END")):
        annotation = {"name": name, "device": 0, "stage": stage, "time_us": 1_000_450}
        value["external_annotations"].append(annotation)
    trace = read_trace(write_pickle(tmp_path / "snapshot.pickle", value))
    assert len(trace.tags) == 1
    assert trace.losses == ["2 begins or ends of annotations have no partner and were left out"]


def test_snapshot_of_a_later_version_names_the_actions_that_are_not_read(tmp_path):
    value = snapshot(annotated=False)
    history = value["device_traces"][0]
    history[:] = [change for change in history if "free" not in change["action"]]
    for change in history:
        change["action"] = change["action"].replace("alloc", "reserve")
    with pytest.raises(TraceError, match=r"left out: reserve, segment_reserve") as refused:
        read_trace(write_pickle(tmp_path / "none.pickle", value | {"segments": []}))
    assert "no events in this trace" in str(refused.value)
