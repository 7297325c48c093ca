"""Every profile for speedscope opens and closes its frames in order of time."""

import json

import pytest

from glassworld.trace.reading.reader import read_trace
from glassworld.trace.writing.speedscope import write_speedscope
from tests.support.other_formats import RUN
from tests.support.traces import engine_run, write


@pytest.mark.parametrize("events", [RUN, engine_run(blocks=1)])
def test_write_speedscope_frames_nest_and_keep_their_times(tmp_path, events):
    trace = read_trace(write(tmp_path / "run.json", events, config=None))
    write_speedscope(tmp_path / "run.speedscope.json", trace)
    document = json.loads((tmp_path / "run.speedscope.json").read_bytes())
    frames = [frame["name"] for frame in document["shared"]["frames"]]
    durations: dict[str, int] = {}
    for profile in document["profiles"]:
        opened, last = [], 0
        for event in profile["events"]:
            assert event["at"] >= last
            last = event["at"]
            if event["type"] == "O":
                opened.append((event["frame"], last))
            else:
                frame, at = opened.pop()
                assert frame == event["frame"]
                durations[frames[frame]] = durations.get(frames[frame], 0) + last - at
        assert not opened
        assert last <= profile["endValue"]
    expected: dict[str, int] = {}
    for event in events:
        ns = round(event["dur"] * 1000)
        expected[event["name"]] = expected.get(event["name"], 0) + ns
    assert durations == pytest.approx(expected, abs=100)  # an end is cut to the one around it
