"""How many threads torch computes with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

if hasattr(os, "register_at_fork"):
    # A fork copies none of the threads that OpenMP keeps, and the child would wait for them for
    # ever. With one thread it needs none, as in the workers of torch's DataLoader.
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


def threads_beside_others() -> int:
    """Return how many threads leave a core to the rest of the program, where there are two.

    Threads that wait for one another stand still whenever anything else takes a core from one of
    them. A number set by OMP_NUM_THREADS stays.
    """
    threads = torch.get_num_threads()
    return threads if "OMP_NUM_THREADS" in os.environ else max(1, threads - 1)


@contextmanager
def using_threads(count: int) -> Iterator[None]:
    """Let torch compute with `count` threads for calls from this thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
