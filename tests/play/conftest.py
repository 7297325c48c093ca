"""One running server for the tests of a module."""

from collections.abc import Iterator

import pytest

from tests.support.live import RATE, LiveServer


@pytest.fixture(scope="module")
def live() -> Iterator[LiveServer]:
    with LiveServer(frame_rate=RATE) as server:
        yield server
