"""The flight recorder keeps the newest tags, whole, and writes them as a trace."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from glassworld.errors import InputError
from glassworld.files import DiskFullError
from glassworld.profiling import flight_recorder
from glassworld.profiling.flight_recorder import (
    OTHER,
    Mark,
    TagInterval,
    TagRing,
    write_flight_recording,
)
from glassworld.profiling.tags import listen, tag
from glassworld.trace import analyze
from tests.support import tiny
from tests.support.disk import fill, small_disk

Closed = tuple[str, float, float, int]


class ListeningList:
    """A tag listener that simply keeps everything."""

    def __init__(self) -> None:
        self.closed: list[Closed] = []

    def __call__(self, pattern: str, fields: dict[str, Any], start: float, end: float) -> None:
        self.closed.append((pattern.format(**fields), start, end, threading.get_ident()))


@pytest.fixture
def everything() -> Iterator[ListeningList]:
    listener = ListeningList()
    stop = listen(listener)
    yield listener
    stop()


def kept(ring: TagRing, until: float | None = None) -> list[TagInterval]:
    end = time.perf_counter() if until is None else until
    return [interval for portion in ring.intervals(end) for interval in portion]


def as_intervals(closed: list[Closed]) -> list[TagInterval]:
    """Return what was heard the way the ring returns it."""
    ordered = sorted(closed, key=lambda tag: (tag[1], -tag[2]))
    return [TagInterval(n, round(1e9 * b), round(1e9 * e), t) for n, b, e, t in ordered]


def test_ring_under_several_threads_keeps_the_newest_in_order(everything: ListeningList) -> None:
    ring = TagRing(60, rows=1000)
    stop = listen(ring)

    def work(thread: int) -> None:
        for number in range(2000):
            with tag("Outer_{thread}_{number}", thread=thread, number=number), tag("Inner"):
                pass

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stop()
    intervals = kept(ring)
    heard = as_intervals(everything.closed)
    assert len(everything.closed) == 4 * 2 * 2000
    assert len(ring._buffer) == 1000 * 56
    assert 500 < len(intervals) <= 1000
    assert [i.begin_ns for i in intervals] == sorted(i.begin_ns for i in intervals)
    assert set(intervals) <= set(heard)
    for ident in {i.thread for i in intervals}:  # nothing in between is missing
        of_thread = [i for i in heard if i.thread == ident]
        own = [i for i in intervals if i.thread == ident]
        assert own == of_thread[-len(own) :]


def test_ring_holds_each_tag_with_all_inside_it_or_not_at_all() -> None:
    ring = TagRing(60, rows=6)
    stop = listen(ring)
    for number in range(3):
        with tag("Outer_{number}", number=number):
            for _ in range(3):
                with tag("Inner"):
                    pass
    stop()
    assert [i.name for i in kept(ring)] == ["Outer_2", "Inner", "Inner", "Inner"]


def test_ring_forgets_what_is_older_than_its_seconds_or_ends_later() -> None:
    ring = TagRing(10)
    for begin, end in [(100.0, 101.0), (105.0, 106.0), (107.0, 109.5), (109.0, 111.0)]:
        ring("Tag_{begin}", {"begin": int(begin)}, begin, end)
    assert [i.name for i in kept(ring, until=110.0)] == ["Tag_100", "Tag_105", "Tag_107"]
    assert [i.name for i in kept(ring, until=111.5)] == ["Tag_105", "Tag_107", "Tag_109"]


def test_ring_names_tags_as_a_capture_does(monkeypatch: pytest.MonkeyPatch) -> None:
    ring = TagRing(10)
    ring("Step_{a}_{b}_t{c}", {"a": 1, "b": 22, "c": 333}, 1.0, 2.0)
    ring("Step_{a}_{b}_t{c}", {"c": 333, "b": 22, "a": 1}, 3.0, 4.0)
    ring("Share_{of}", {"of": 0.25}, 5.0, 6.0)
    ring("Four_{a}{b}{c}{d}", {"a": 1, "b": 2, "c": 3, "d": 4}, 7.0, 8.0)
    ring("Braces_{}", {}, 8.0, 9.0)
    names = ["Step_1_22_t333", "Step_1_22_t333", "Share_0.25", "Four_1234", "Braces_{}"]
    assert [i.name for i in kept(ring, until=9.0)] == names
    monkeypatch.setattr(flight_recorder, "MAX_NAMES", 6)
    ring("One_Too_Many", {}, 9.0, 9.5)
    ring("Share_{of}", {"of": 0.5}, 9.5, 9.75)
    assert [i.name for i in kept(ring, until=10.0)][-2:] == [OTHER, OTHER]


def test_written_recording_has_the_durations_that_were_heard(
    tmp_path: Path, everything: ListeningList
) -> None:
    path, ring = tmp_path / "flight.json.gz", TagRing(60)
    stop = listen(ring)
    tiny.world().generate(tiny.picture(), 6)
    stop()
    until = time.perf_counter()
    mark = Mark("Late_Frame", until - 0.1, until, "player 1", {"frame": 7})
    write_flight_recording(path, ring, until, [mark], {"seed": 3}, {"late": 1})
    analysis = analyze(path)
    sums: dict[str, int] = {}
    for name, begin, end, _ in everything.closed:
        sums[name] = sums.get(name, 0) + round(1e9 * end) - round(1e9 * begin)
    read: dict[str, int] = {}
    for row in analysis.tags:
        read[row.name] = read.get(row.name, 0) + round(1e6 * row.cpu_ms)
    assert read == sums
    assert sum(row.instances for row in analysis.tags) == len(everything.closed)


def test_recording_without_tags_is_still_a_trace(tmp_path: Path) -> None:
    path = tmp_path / "flight.json"
    write_flight_recording(path, TagRing(30), 100.0, [], {}, {"late": {"frame": 1}})
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["traceEvents"] == []
    described = content["glassworld"]
    assert described["config"]["profile_mode"] == "flight"
    assert described["flight_recorder"] == {
        "seconds": 30,
        "covered_seconds": 0.0,
        "late": {"frame": 1},
    }


def test_recording_on_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    ring = TagRing(60)
    for number in range(2000):
        ring("Tag_{number}", {"number": number}, 1.0 + number, 1.5 + number)
    with small_disk(tmp_path / "disk", 64) as folder:
        filler = fill(folder)
        with pytest.raises((DiskFullError, InputError)):
            write_flight_recording(folder / "flight.json", ring, 50.0, [], {}, {})
        assert list(folder.iterdir()) == [filler]
