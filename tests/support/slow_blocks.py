"""Blocks that take long, by a wait inside their tags."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from glassworld.profiling import registry as tags
from glassworld.profiling.tags import listen


@contextmanager
def slow_blocks(
    *blocks: int, seconds: float = 0.6, after: Callable[[int], None] | None = None
) -> Iterator[None]:
    """Let the first step of these blocks of any session take so much longer.

    `after` is then called with the block's number.
    """

    def wait(pattern: str, fields: dict[str, Any], start: float, end: float) -> None:
        if pattern == tags.DENOISING_STEP and fields["block"] in blocks and fields["step"] == 0:
            time.sleep(seconds)
            if after is not None:
                after(fields["block"])

    stop = listen(wait)
    try:
        yield
    finally:
        stop()
