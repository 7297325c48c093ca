"""The number of threads, chosen on simulated machines, and the bits that must not depend on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from glassworld.engine.runtime import threads
from glassworld.engine.runtime.cores import CoreMeter, CPUTime
from glassworld.engine.runtime.threads import (
    ThreadChooser,
    chosen_by_user,
    even_count,
    using_free_cores,
    using_threads,
)
from tests.support import tiny


@dataclass
class Machine:
    """A simulated machine: `busy` of its cores are used by others, and blocks take their time."""

    cores: int
    tells: bool = True  # whether the system tells how busy the cores are
    busy: float = 0.0
    slow_block: float = 1.0  # factor of the next block alone
    now: float = 0.0
    idle: float = 0.0
    own: float = 0.0
    counts: list[int] = field(default_factory=list)

    def read(self) -> CPUTime | None:
        return CPUTime(self.now, self.idle, self.own) if self.tells else None

    def seconds(self, count: int) -> float:
        """Return the time of a block: two thirds can be shared, threads without a core spin."""
        waiting = 40 if count > self.cores - self.busy else 1
        return 0.3 * (1 / 3 + 2 / 3 / count) * waiting

    def run(self, chooser: ThreadChooser, blocks: int) -> Counter[int]:
        """Generate blocks, and return how many were computed by each number of threads."""
        counts: Counter[int] = Counter()
        for _ in range(blocks):
            with chooser.block() as count:
                assert torch.get_num_threads() == count
                seconds = self.slow_block * self.seconds(count)
                self.slow_block = 1.0
                used = min(count, self.cores - self.busy)
                self.now += seconds
                self.own += used * seconds
                self.idle += (self.cores - self.busy - used) * seconds
            counts[count] += 1
        return counts

    def chooser(self, fewest: int = 1) -> ThreadChooser:
        return ThreadChooser(self.cores, fewest, CoreMeter(self.read), lambda: self.now)


def test_thread_chooser_on_an_idle_machine_uses_all_cores() -> None:
    for cores in (2, 4, 16):
        machine = Machine(cores)
        counts = machine.run(machine.chooser(), 200)
        assert counts[cores] >= 180
        assert counts[cores // 2] >= 1  # tried, and given up


def test_thread_chooser_leaves_a_core_that_another_process_takes_after_one_slow_block() -> None:
    machine = Machine(2)
    chooser = machine.chooser()
    machine.run(chooser, 20)
    assert chooser.count == 2
    machine.busy = 1
    counts = machine.run(chooser, 400)
    assert counts[2] <= 1
    machine.busy = 0
    assert machine.run(chooser, 40)[2] >= 30


def test_thread_chooser_starts_with_the_cores_that_are_free() -> None:
    machine = Machine(2, busy=1)
    meter = CoreMeter(machine.read)
    machine.now, machine.own = 1.0, 1.0  # a second of loading, on the only free core
    chooser = ThreadChooser(2, 1, meter, lambda: machine.now)
    assert machine.run(chooser, 50) == {1: 50}


def test_thread_chooser_where_the_system_tells_nothing_goes_by_block_times() -> None:
    machine = Machine(2, tells=False)
    chooser = machine.chooser()
    machine.run(chooser, 20)
    assert chooser.count == 2
    machine.busy = 1
    began, counts = machine.now, machine.run(chooser, 400)
    assert counts[2] <= 4
    best = 400 * machine.seconds(1)
    assert machine.now - began - 2 * machine.seconds(2) < 1.2 * best  # two before it can know
    machine.busy = 0
    machine.run(chooser, 2000)
    assert chooser.count == 2


def test_thread_chooser_uses_fewer_threads_where_they_are_faster() -> None:
    class SmallBlocks(Machine):
        def seconds(self, count: int) -> float:
            return 0.01 * count

    machine = SmallBlocks(4)
    counts = machine.run(machine.chooser(), 100)
    assert counts[1] >= 85
    counts = machine.run(machine.chooser(fewest=2), 100)
    assert counts[2] >= 85
    assert counts[1] == 0


def test_thread_chooser_keeps_its_number_after_a_single_slow_block() -> None:
    machine = Machine(2)
    chooser = machine.chooser()
    machine.run(chooser, 20)
    machine.slow_block = 1.8
    assert machine.run(chooser, 19)[2] >= 18


def test_thread_chooser_after_an_error_gives_the_threads_back() -> None:
    before = torch.get_num_threads()
    chooser = ThreadChooser(2)
    with pytest.raises(ValueError, match="no block"), chooser.block():
        raise ValueError("no block")
    assert torch.get_num_threads() == before


def test_even_count_is_a_power_of_two_or_three_of_them() -> None:
    counts = {1: 1, 2: 2, 3: 3, 4: 4, 5: 4, 7: 6, 11: 8, 15: 12, 16: 16, 0.2: 1, 1.9: 1, 2.5: 2}
    assert {count: even_count(count) for count in counts} == counts


def test_number_of_the_user_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in threads.SETTINGS:
        monkeypatch.delenv(name, raising=False)
    cpu, other = torch.device("cpu"), torch.get_num_threads() + 1
    with using_threads(other):
        assert chosen_by_user()
        with using_free_cores(cpu):
            assert torch.get_num_threads() == other
    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))
    assert chosen_by_user()


def count_choices(monkeypatch: pytest.MonkeyPatch, generate: Callable[[], object]) -> list[int]:
    """Return the numbers that are chosen for blocks, on two idle cores, while `generate` runs."""
    counts: list[int] = []
    learn = ThreadChooser._learn

    def observe(chooser: ThreadChooser, count: int, seconds: float) -> None:
        counts.append(count)
        learn(chooser, count, seconds)

    monkeypatch.setattr(ThreadChooser, "_learn", observe)
    generate()
    return counts


def test_blocks_of_every_kind_choose_their_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glassworld.engine.pipeline.chosen_by_user", lambda: False)
    monkeypatch.setattr("glassworld.engine.overlap.chosen_by_user", lambda: False)
    world = tiny.world(dit={"ffn_dim": 2048})
    with using_threads(2):
        session = world.start(tiny.picture())
        assert len(count_choices(monkeypatch, lambda: session.step(world.space.press("w")))) == 1
        run = count_choices(monkeypatch, lambda: world.generate(tiny.picture(), 9))
        assert run[1:] == [2, 2]  # each of two lanes has one
        assert torch.get_num_threads() == 2


def test_compiled_worlds_keep_their_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glassworld.engine.pipeline.chosen_by_user", lambda: False)
    world = tiny.world()
    monkeypatch.setattr(world.networks.dit, "compiled", True)
    counts = count_choices(monkeypatch, lambda: world.generate(tiny.picture(), 6, noise="blocks"))
    assert counts == []


def test_frames_do_not_depend_on_the_number_of_threads() -> None:
    world, rollouts = tiny.world(), {}
    for count in (1, 2, 8):
        with using_threads(count):
            rollouts[count] = world.generate(tiny.picture(), 3, seed=2, noise="blocks")
    one, two, many = rollouts.values()
    assert np.array_equal(one.frames, two.frames)
    assert torch.equal(one.latents, two.latents)
    # Eight threads get parts of vectors: this world is too small for them.
    assert np.abs(one.frames.astype(int) - many.frames).max() <= 1
    torch.testing.assert_close(one.latents, many.latents, rtol=0, atol=1e-5)
