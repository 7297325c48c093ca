"""How a training of so many minutes divides its time among the stages."""

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from glassworld.errors import InputError
from glassworld.files import write_file

SHARES = {"episodes": 0.1, "VAE": 0.28, "decoder": 0.12}
"""Share of the time of each stage with a limit. The transformer gets what the others leave."""
EXPORT_SHARE = 0.04
"""Left for the export, the samples and for starting up."""
LEAST_SHARE = 0.15
"""What the transformer gets in any case, should the stages before it take too long."""


class StageBudget:
    """Measures the stages of a run over all its interruptions, and divides the time.

    Parameters
    ----------
    path
        File that keeps the seconds of each stage.
    minutes
        Length of the whole training; None: no limit, the stages are only measured.

    Raises
    ------
    InputError
        The minutes are no positive number, or the file is damaged.
    """

    def __init__(self, path: Path, minutes: float | None) -> None:
        if minutes is not None and not 0 < minutes < math.inf:
            raise InputError(f"minutes is {minutes:g}: it must be a positive number")
        self.path, self.minutes = path, minutes
        content = path.read_bytes() if path.exists() else b"{}"
        try:
            self.spent = msgspec.json.decode(content, type=dict[str, float])
        except msgspec.MsgspecError as error:
            raise InputError(f"{path}: damaged; delete it to measure the stages again") from error

    @contextmanager
    def stage(self, name: str) -> Iterator[float | None]:
        """Measure a stage; yield the seconds that it may take in all, None without a limit."""
        started, before = time.monotonic(), self.spent.get(name, 0.0)
        try:
            yield self.limit(name)
        finally:
            self.spent[name] = before + time.monotonic() - started
            write_file(self.path, json.dumps(self.spent, indent=1).encode())

    def limit(self, name: str) -> float | None:
        """Return the seconds that a stage may take, over all interruptions."""
        if self.minutes is None:
            return None
        total = 60 * self.minutes
        if name in SHARES:
            return total * SHARES[name]
        others = sum(seconds for stage, seconds in self.spent.items() if stage != name)
        return max(total * LEAST_SHARE, total * (1 - EXPORT_SHARE) - others)
