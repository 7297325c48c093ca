"""Launching kernels, or only having them compiled: many at once, before they are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import torch
import triton

_ahead = ContextVar("only compiled", default=False)


def launch(kernel: Any, grid: tuple[int, ...], *given: Any, **named: Any) -> None:
    """Run the kernel over the grid; within `compile_without_launching` only compile it."""
    if _ahead.get():
        kernel.warmup(*given, grid=grid, **named)
    else:
        kernel[grid](*given, **named)


@contextmanager
def compile_without_launching(device: torch.device) -> Iterator[None]:
    """Launch nothing in this thread, but have all that would be compiled, side by side.

    What kernels would have written is left as it is. Ends when everything is compiled and on the
    device; raises what the compiler raises.
    """
    token = _ahead.set(True)
    try:
        with Compiling(device) as threads, triton.AsyncCompileMode(threads):
            yield
    finally:
        _ahead.reset(token)


class Compiling(ThreadPoolExecutor):
    """Threads that compile kernels and load them."""

    def __init__(self, device: torch.device) -> None:
        on_device = partial(torch.cuda.set_device, device) if device.type == "cuda" else None
        super().__init__(initializer=on_device)

    def submit(self, compiled: Callable[[], Any]) -> Future[Any]:  # type: ignore[override]
        return super().submit(loaded, compiled)


def loaded(compiled: Callable[[], Any]) -> Any:
    """A kernel that could be launched at once: Triton compiles a launcher of C for each, too."""
    kernel = compiled()
    _ = kernel.run  # a property that loads what it returns
    return kernel
