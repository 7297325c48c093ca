"""Launch kernels, or only compile them: many side by side, before they are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import torch
import triton

_compile_only = ContextVar("compile only", default=False)


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
    """Run the kernel over the grid; within `compile_without_launching` only compile it."""
    if _compile_only.get():
        kernel.warmup(*arguments, grid=grid, **constants)
    else:
        kernel[grid](*arguments, **constants)


@contextmanager
def compile_without_launching(device: torch.device) -> Iterator[None]:
    """Compile the kernels that this thread would launch, side by side, and launch none.

    Outputs of kernels stay unwritten. Ends when everything is compiled and loaded on the device;
    raises what the compiler raises.
    """
    token = _compile_only.set(True)
    try:
        with CompilerPool(device) as threads, triton.AsyncCompileMode(threads):
            yield
    finally:
        _compile_only.reset(token)


class CompilerPool(ThreadPoolExecutor):
    """Threads that compile kernels and load them on a device."""

    def __init__(self, device: torch.device) -> None:
        on_device = partial(torch.cuda.set_device, device) if device.type == "cuda" else None
        super().__init__(initializer=on_device)

    def submit(self, compile_kernel: Callable[[], Any]) -> Future[Any]:  # type: ignore[override]
        """Compile and load one kernel."""
        return super().submit(_compile_and_load, compile_kernel)


def _compile_and_load(compile_kernel: Callable[[], Any]) -> Any:
    """Return a kernel that can be launched at once: Triton also compiles a C launcher for each."""
    kernel = compile_kernel()
    _ = kernel.run  # a property that loads what it returns
    return kernel
