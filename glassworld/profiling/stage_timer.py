"""Time the stages of a block from the always-on tags."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import get_ident
from typing import Any, NamedTuple

from glassworld.profiling import registry as tags

_NAMES = {
    tags.CONDITION_ENCODE: "Condition",
    tags.DENOISING_STEP: "Denoise t={timestep}",
    tags.UPDATE_CACHE: "Update caches",
    tags.VAE_DECODE: "Decode",
}


class StageTime(NamedTuple):
    """The time of one stage of a block."""

    name: str
    milliseconds: float


class StageTimer:
    """A tag listener that times the stages of one block.

    `synchronize` waits for the device: a stage ends when its work is done, not when it has been
    queued. A block has five or six stages, so the waits cost little.
    """

    def __init__(self, synchronize: Callable[[], None]) -> None:
        self._synchronize = synchronize
        self._thread = get_ident()  # other threads may generate blocks of their own
        self._last_end = time.perf_counter()
        self.stages: list[StageTime] = []

    def __call__(self, pattern: str, fields: dict[str, Any], start: float, end: float) -> None:
        """Add a stage if `pattern` ends one, or add its time to the previous of the same name."""
        name = _NAMES.get(pattern)
        if name is None or get_ident() != self._thread:
            return
        self._synchronize()
        now = time.perf_counter()
        stage = StageTime(name.format(**fields), 1e3 * (now - self._last_end))
        if self.stages and self.stages[-1].name == stage.name:  # of another session in the batch
            milliseconds = self.stages.pop().milliseconds + stage.milliseconds
            stage = StageTime(stage.name, milliseconds)
        self.stages.append(stage)
        self._last_end = now
