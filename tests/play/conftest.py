"""A running server for the tests of one file."""

from collections.abc import Iterator

import pytest

from tests.support.live import RATE, Live


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with Live(frame_rate=RATE) as running:
        yield running
