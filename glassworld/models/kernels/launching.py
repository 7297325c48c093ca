"""Launching kernels, or only having them compiled: many at once, before they are needed."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import triton

_ahead = ContextVar("only compiled", default=False)


def launch(kernel: Any, grid: tuple[int, ...], *given: Any, **named: Any) -> None:
    """Run the kernel over the grid; within `compiling_ahead` compile it for such arguments."""
    if _ahead.get():
        kernel.warmup(*given, grid=grid, **named)
    else:
        kernel[grid](*given, **named)


@contextmanager
def compiling_ahead() -> Iterator[None]:
    """Launch nothing in this thread, but have all that would be compiled, side by side.

    What kernels would have written is left as it is. Ends when everything is compiled; raises
    what the compiler raises.
    """
    token = _ahead.set(True)
    try:
        with ThreadPoolExecutor() as threads, triton.AsyncCompileMode(threads):
            yield
    finally:
        _ahead.reset(token)
