"""What a block costs, counted instead of timed: operators, bytes, and no waiting for the device."""

from __future__ import annotations

import sys
from collections import Counter

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from glassworld.engine.actions.track import Action
from glassworld.engine.runtime.memory import keep_freed_memory
from glassworld.engine.world import Session
from tests.support import tiny

WALK = Action((1, 0, 0, 0), (0, 0.1))

# aten calls, nested ones included, of a steady block: three steps, update pass, three frames.
# Lower it when work is saved; a rise needs a reason.
MOST_OPERATORS = 10300
WAITS = {"aten::item", "aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero"}


def steady() -> Session:
    session = tiny.world().start(tiny.picture())
    for _ in range(12):  # the window is full and the encoder has forgotten the picture
        session.step(WALK)
    return session


def operators(session: Session) -> Counter[str]:
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        session.step(WALK)
    return Counter(event.name for event in recorded.events() if event.name.startswith("aten::"))


def test_every_block_does_the_same_work() -> None:
    session = steady()
    period = [operators(session) for _ in range(4)]  # the ring of 6 repeats every two blocks
    assert period[0] == period[2]
    assert period[1] == period[3]
    assert max(counted.total() for counted in period) <= MOST_OPERATORS


def test_a_block_never_waits_for_the_device() -> None:
    session = steady()
    held = session.world.space.fill(WALK, session.next_frames)
    session.state.actions.append(held.keyboard, held.mouse, 12)
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        session.world.pipeline.run_block(session.state)
    names = {event.name for event in recorded.events()}
    assert not names & WAITS


def test_steady_blocks_leave_no_memory_behind() -> None:
    session = steady()
    held = session.state.tensors_bytes()
    storages = {window.self_attention.k.data_ptr() for window in session.state.caches}
    for _ in range(4):
        session.step(WALK)
    assert session.state.tensors_bytes() == held
    assert {window.self_attention.k.data_ptr() for window in session.state.caches} == storages


@pytest.mark.skipif(sys.platform != "linux", reason="the C library is not glibc")
def test_freed_memory_is_kept_for_the_next_tensor() -> None:
    import resource

    def faults_of(count: int) -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(count):
            torch.empty(10 * 2**20).fill_(1)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    keep_freed_memory()
    faults_of(3)
    assert faults_of(8) < 100  # a tensor has 10240 pages
