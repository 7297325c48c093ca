"""An XPlane of XLA gives the figures of the torch trace of the same run, and of its own JSON."""

import gzip
import json

import pytest

from glassworld.errors import TraceError
from glassworld.trace import analyze
from glassworld.trace.reading.reader import read_trace
from tests.support.other_formats import PID, TID, XLA_RUN, figures, write_xplane
from tests.support.protos import XPLANE
from tests.support.traces import invoke, write


@pytest.fixture
def xplane(tmp_path):
    return write_xplane(tmp_path / "host.xplane.pb")


def named(event):
    """Return an event with the name of its step as XLA's profiler makes it up."""
    name = event["name"].replace("step_", "step ")
    return event | {"name": name}


def test_xplane_figures_equal_those_of_the_torch_trace(tmp_path, xplane):
    torch_run = analyze(write(tmp_path / "run.json", map_run(named), config=None))
    analysis = analyze(xplane)
    assert figures(analysis) == figures(torch_run)
    assert analysis.coverage.gpu_ops == analysis.coverage.attributed == 12
    assert [row.pattern for row in analysis.patterns] == ["step {n}"]
    assert analysis.trace.losses == []
    assert any("XLA Ops" in note for note in analysis.trace.left_out)


def map_run(change):
    return [change(event) for event in XLA_RUN]


def test_xplane_gpu_work_equals_that_of_the_json_of_the_same_profile(tmp_path, xplane):
    def uncategorized(event):
        on_device = event["pid"] == 0
        args = {"step_num": event["name"][-1]} if "step_" in event["name"] else {}
        name = event["name"].removesuffix("_0").removesuffix("_1").removesuffix("_2")
        place = {"pid": 1, "tid": 7} if on_device else {"pid": PID, "tid": TID}
        return {
            "ph": "X",
            "name": name,
            "ts": event["ts"],
            "dur": event["dur"],
            "args": args,
        } | place

    events = [
        {"ph": "M", "pid": pid, "tid": tid, "name": f"{kind}_name", "args": {"name": name}}
        for kind, pid, tid, name in (
            ("process", 1, 0, "/device:GPU:0"),
            ("thread", 1, 7, "Stream #7(Compute)"),
            ("thread", 1, 100, "XLA Ops"),
            ("process", PID, 0, "/host:CPU"),
        )
    ]
    events += map_run(uncategorized)
    events += [event | {"tid": 100} for event in events if event["pid"] == 1 and "dur" in event]
    path = tmp_path / "host.trace.json.gz"
    path.write_bytes(gzip.compress(json.dumps({"traceEvents": events}).encode()))
    from_json, from_xplane = analyze(path), analyze(xplane)
    assert from_json.gpu
    assert from_xplane.gpu
    assert from_json.gpu.busy_ns == from_xplane.gpu.busy_ns
    assert from_json.coverage.gpu_ops == 12
    assert [row.path for row in from_json.tags] == [row.path for row in from_xplane.tags]
    assert [row.cpu_ms for row in from_json.tags] == [row.cpu_ms for row in from_xplane.tags]


def test_xplane_name_does_not_matter(tmp_path, xplane):
    assert invoke("top", xplane.rename(tmp_path / "trace.json")).exit_code == 0


def test_xplane_cut_between_planes_keeps_the_first(xplane):
    content = xplane.read_bytes()
    xplane.write_bytes(content[:-10])
    trace = read_trace(xplane)
    assert len(trace.tags) == 3
    assert not len(trace.device_ops)
    assert any("ends in the middle" in loss for loss in trace.losses)


@pytest.mark.parametrize("size", [3, 30, 300])
def test_xplane_cut_in_its_first_plane_is_one_clear_line(xplane, size):
    xplane.write_bytes(xplane.read_bytes()[:size])
    with pytest.raises(TraceError, match=r"no events|not a"):
        read_trace(xplane)


def test_xplane_without_events_says_what_the_profiler_reported(tmp_path):
    space = XPLANE["XSpace"](errors=["no devices"])
    space.planes.add(name="/host:CPU")
    path = tmp_path / "t.xplane.pb"
    path.write_bytes(space.SerializeToString())
    with pytest.raises(TraceError, match="no devices"):
        read_trace(path)


def test_xplane_stream_with_a_huge_number_is_read(tmp_path):
    space = XPLANE["XSpace"]()
    plane = space.planes.add(name="/device:GPU:" + "9" * 5_000)
    line = plane.lines.add(name="Stream #" + "9" * 5_000)
    line.events.add(duration_ps=5_000)
    path = tmp_path / "t.xplane.pb"
    path.write_bytes(space.SerializeToString())
    assert len(read_trace(path).device_ops) == 1


def test_xplane_damaged_byte_never_ends_in_a_traceback(xplane):
    content = xplane.read_bytes()
    for at in range(0, len(content), 97):
        xplane.write_bytes(content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :])
        try:
            read_trace(xplane)
        except TraceError as error:
            assert str(error).startswith(str(xplane))  # noqa: PT017
