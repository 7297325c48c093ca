"""Help for the tests of the bench."""

from __future__ import annotations

from pathlib import Path

import pytest

from glassworld.bench import peak_rates


def use_small_peak_rates(patch: pytest.MonkeyPatch, cache: Path) -> None:
    """Measure peak rates with small tensors, and store them in `cache`."""
    patch.setenv("XDG_CACHE_HOME", str(cache))
    patch.setattr(peak_rates, "MATRIX", {"cpu": 64})
    patch.setattr(peak_rates, "COPY_MEGABYTES", {"cpu": 1})
    patch.setattr(peak_rates, "CONV_SHAPE", {"cpu": (1, 4, 8, 8)})
