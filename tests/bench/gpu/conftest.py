"""A context with the tiny world on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from glassworld.bench.gpu.context import BenchContext
from tests.support import tiny


@pytest.fixture
def context(tmp_path: Path) -> BenchContext:
    return BenchContext(tiny.world, {}, 3, tmp_path)
