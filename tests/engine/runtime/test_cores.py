"""Readings of /proc/stat, and the free cores between two of them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from glassworld.engine.runtime.cores import CoreMeter, CPUTime, read_cpu_time


def free_cores(*readings: CPUTime | None) -> list[float | None]:
    """Return what a meter says after each reading but the first."""
    left = list(readings)
    meter = CoreMeter(lambda: left.pop(0))
    return [meter.free() for _ in readings[1:]]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_read_cpu_time_counts_the_idle_time_of_the_cores_of_this_process(tmp_path: Path) -> None:
    cores = sorted(os.sched_getaffinity(0))
    lines = ["cpu  1 2 3 999 999", *(f"cpu{core} 5 0 5 200 100 0 0 0" for core in cores)]
    lines += [f"cpu{cores[-1] + 1} 5 0 5 7000 0 0 0 0", "intr 12 0"]
    statistics = tmp_path / "stat"
    statistics.write_text("\n".join(lines))
    reading = read_cpu_time(statistics)
    assert reading is not None
    assert reading.idle == pytest.approx(300 / os.sysconf("SC_CLK_TCK") * len(cores))
    assert reading.own > 0


def test_read_cpu_time_without_statistics_is_unknown(tmp_path: Path) -> None:
    assert read_cpu_time(tmp_path / "missing") is None
    (tmp_path / "empty").write_text("cpu  1 2 3\n")
    assert read_cpu_time(tmp_path / "empty") is None


def test_core_meter_adds_idle_cores_and_those_of_this_process() -> None:
    idle_machine = CPUTime(10, 100, 50), CPUTime(12, 102, 52)  # one core idle, one used by us
    assert free_cores(*idle_machine) == [pytest.approx(2)]
    busy_machine = CPUTime(10, 100, 50), CPUTime(12, 100, 52)  # somebody uses the other core
    assert free_cores(*busy_machine) == [pytest.approx(1)]


def test_core_meter_keeps_its_figure_until_enough_time_has_passed() -> None:
    readings = CPUTime(0, 0, 0), CPUTime(0.1, 0, 0), CPUTime(1, 1, 1), CPUTime(1.1, 1, 1)
    assert free_cores(*readings) == [None, pytest.approx(2), pytest.approx(2)]


def test_core_meter_of_a_system_that_hides_the_times_is_unknown() -> None:
    assert free_cores(None, None, CPUTime(9, 9, 9)) == [None, None]


def test_core_meter_of_a_forked_process_counts_no_negative_time() -> None:
    assert free_cores(CPUTime(0, 0, 50), CPUTime(1, 1, 0)) == [pytest.approx(1)]
