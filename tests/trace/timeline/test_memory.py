"""Memory by tag."""

from glassworld.trace import analyze
from glassworld.trace.reading import columns
from tests.support.traces import CpuTrace, write


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
