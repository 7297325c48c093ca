"""Where a block's time went, heard from the always-on tags."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import get_ident
from typing import Any

from glassworld.play.protocol import StageTime
from glassworld.profiling import registry as tags

_NAMES = {
    tags.CONDITION_ENCODE: "Condition",
    tags.DENOISING_STEP: "Denoise t={timestep}",
    tags.UPDATE_CACHE: "Update caches",
    tags.VAE_DECODE: "Decode",
}


class StageTimer:
    """A listener of the tags that times the stages of one block.

    `synchronize` waits for the device: a stage ends when its work is done, not when it has been
    handed over. There are five or six stages a block, so waiting costs nothing that shows.
    """

    def __init__(self, synchronize: Callable[[], None]) -> None:
        self._synchronise = synchronize
        self._thread = get_ident()  # others may make blocks of their own
        self._mark = time.perf_counter()
        self.stages: list[StageTime] = []

    def __call__(self, pattern: str, fields: dict[str, Any], start: float, end: float) -> None:
        name = _NAMES.get(pattern)
        if name is not None and get_ident() == self._thread:
            self._synchronise()
            now = time.perf_counter()
            stage = StageTime(name.format(**fields), 1e3 * (now - self._mark))
            if self.stages and self.stages[-1].name == stage.name:  # of another session
                stage.ms += self.stages.pop().ms
            self.stages.append(stage)
            self._mark = now
