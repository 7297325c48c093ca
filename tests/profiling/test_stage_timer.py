"""The stage timer sees the stages of its own thread, with the device's work finished."""

from __future__ import annotations

import threading

from glassworld.profiling import registry as tags
from glassworld.profiling.stage_timer import StageTimer
from glassworld.profiling.tags import listen, tag
from tests.support import tiny


def test_stage_timer_while_another_thread_generates_ignores_it() -> None:
    """Waiting for the device on behalf of another thread would break that thread's capture."""
    waits: list[int] = []
    timer = StageTimer(lambda: waits.append(threading.get_ident()))
    stop = listen(timer)
    try:
        other = threading.Thread(target=tiny.world().generate, args=(tiny.picture(), 3))
        other.start()
        other.join()
        assert (waits, timer.stages) == ([], [])
        tiny.world().generate(tiny.picture(), 3)
    finally:
        stop()
    assert {*waits} == {threading.get_ident()}
    assert "Decode" in [stage.name for stage in timer.stages]


def test_stage_timer_on_the_same_stage_twice_in_a_row_adds_the_times() -> None:
    timer = StageTimer(lambda: None)
    stop = listen(timer)
    try:
        for pattern in (tags.CONDITION_ENCODE, tags.CONDITION_ENCODE, tags.VAE_DECODE):
            with tag(pattern, block=0):
                pass
    finally:
        stop()
    assert [stage.name for stage in timer.stages] == ["Condition", "Decode"]
    assert all(stage.milliseconds > 0 for stage in timer.stages)
