"""A cold start that fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from glassworld.bench.cold_start import cold_start


@pytest.mark.slow
def test_a_cold_start_that_fails_raises_the_words_of_its_process(tmp_path: Path) -> None:
    request = {"world": {}, "accelerate": [], "picture": str(tmp_path / "missing.png")}
    with pytest.raises(RuntimeError, match=r"(?s)cold start.*missing.png"):
        cold_start(request)
