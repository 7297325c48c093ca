"""How many threads torch computes with: as many as pay, on a machine that others use too.

Torch's threads wait for one another after every operator, and spin meanwhile. Where another process
takes a core from one of them, all stand still: on two cores, one of them busy, a block takes many
times as long on two threads as on one. So the engine chooses the number before each block, by two
measurements:

- The cores that other processes leave free are the limit.
- Up to it, the number whose blocks took the least time stays. Now and then a block tries half or
  twice as many threads.

A number that the user chose stays: OMP_NUM_THREADS, MKL_NUM_THREADS or `torch.set_num_threads`.

Only 1, 2, 3, 4, 6, 8, 12 and so on are used. The sizes of a world's tensors are multiples of them,
so every thread gets whole vectors. Torch computes the rest of a vector by other instructions, which
round otherwise, and frames would depend on what else the machine does.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from glassworld.engine.runtime.cores import CORES, CoreMeter

if hasattr(os, "register_at_fork"):
    # A fork copies none of the threads that OpenMP keeps, and the child would wait for them for
    # ever. With one thread it needs none, as in the workers of torch's DataLoader.
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))

SETTINGS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
TORCHS_CHOICE = torch.get_num_threads()
"""Torch's own number of threads, unless the user changed it before this import."""

ENTER, STAY = 0.1, 0.3
"""Part of a core that may be missing for one more thread, to start and to keep it."""

FASTER, SLOWER = 0.9, 2.0
"""Ratios of block times: to change the number of threads, and to look for a better one at once."""

TRIAL_SHARE = 0.05
"""Share of the time that trials may cost."""

RECENT = 4
"""Blocks whose median is the present speed; two of them suffice for a trial."""


def chosen_by_user() -> bool:
    """Return whether the user chose the number of threads of the calling thread.

    Torch's own choice is one thread per core, or per physical core.
    """
    if any(name in os.environ for name in SETTINGS):
        return True
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    threads = torch.get_num_threads()
    return threads != TORCHS_CHOICE or threads not in (cores, max(1, cores // 2))


@contextmanager
def using_threads(count: int) -> Iterator[None]:
    """Let torch compute with `count` threads for calls from this thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def fixed_threads(count: int) -> Iterator[None]:
    """Let torch compute with `count` threads, as if the user had chosen the number."""
    setting = SETTINGS[0]
    before = os.environ.get(setting)
    os.environ[setting] = str(count)
    try:
        with using_threads(count):
            yield
    finally:
        if before is None:
            del os.environ[setting]
        else:
            os.environ[setting] = before


@contextmanager
def using_free_cores(device: torch.device) -> Iterator[None]:
    """Let torch compute with one thread per free core, unless the user chose the number."""
    threads = torch.get_num_threads()
    adapts = device.type == "cpu" and not chosen_by_user()
    with using_threads(_limit(threads, threads, CORES) if adapts else threads):
        yield


def even_count(count: float) -> int:
    """Return the largest number of threads up to `count` that is 2^n or 3 * 2^n, at least 1."""
    power = 1 << int(math.log2(max(1, count)))
    return 3 * power // 2 if 3 * power // 2 <= count else power


def _limit(most: int, present: int, cores: CoreMeter) -> int:
    """Return how many threads have a core each, up to `most`; `present` ones rather stay."""
    free = cores.free()
    if free is None:
        return even_count(most)
    return even_count(min(most, max(min(present, free + STAY), free + ENTER)))


class ThreadChooser:
    """Chooses the number of threads for a sequence of blocks of one kind, by measuring.

        with chooser.block():
            ...  # generate a block

    Starts with `most` threads, or as many as have a core each, and never uses fewer than `fewest`.
    A block of another number is a trial: faster by a tenth, its number stays; if not, the next
    trial of this number waits until the time that this one lost is 5 % of the time gone by. A block
    that takes twice the usual time makes a trial of fewer threads due at once. Fewer threads can
    lose no more than their share; a thread without a core can stop all others, so more threads are
    tried only where cores are free.
    """

    def __init__(
        self,
        most: int,
        fewest: int = 1,
        cores: CoreMeter = CORES,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.count = even_count(most)
        self.most, self.fewest = most, fewest
        self._cores, self._clock = cores, clock
        self._recent: deque[float] = deque(maxlen=RECENT)  # seconds of blocks by `count` threads
        self._due: defaultdict[int, float] = defaultdict(float)  # when to try a number again

    @contextmanager
    def block(self) -> Iterator[int]:
        """Use the chosen number of threads, which is yielded, for one block and time it."""
        count, began = self._next(), self._clock()
        with using_threads(count):
            yield count
        self._learn(count, self._clock() - began)

    def _next(self) -> int:
        """Return the number of threads of the next block."""
        limit = max(self.fewest, _limit(self.most, self.count, self._cores))
        if self.count > limit:
            self._change(limit)
        for count in (self.count // 2, min(2 * self.count, limit)):
            known = len(self._recent) >= RECENT // 2 and count not in (0, self.count)
            if known and count >= self.fewest and self._clock() >= self._due[count]:
                return count
        return self.count

    def _learn(self, count: int, seconds: float) -> None:
        """Take the time of a block into account."""
        usual = statistics.median(self._recent) if self._recent else seconds
        if count == self.count:
            if seconds > SLOWER * usual:
                self._recent.clear()
                self._recent.append(seconds)  # twice: this is the usual time from now on
                self._due[count // 2] = 0
            self._recent.append(seconds)
            return
        best, other = min(usual, seconds), max(usual, seconds)
        wait = max(other - best, best) / TRIAL_SHARE
        if seconds < FASTER * usual:
            self._due[self.count] = self._clock() + wait
            self._change(count)
            self._recent.append(seconds)
        else:
            self._due[count] = self._clock() + wait

    def _change(self, count: int) -> None:
        self.count = count
        self._recent.clear()
